package demo

import (
	_ "embed"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/defender/defendersim"
)

// sampleMachines is the list of machines of a simulator without --machines, and an example of such a file.
//
//go:embed machines.csv
var sampleMachines string

// listed is a line of a list of machines.
type listed struct {
	id string
	defendersim.Machine
}

var machineID = regexp.MustCompile(`^[0-9a-fA-F]{40}$`)

// readMachines reads a list of machines; "": the sample. Its first line names the columns, in any order and case.
func readMachines(path string) ([]listed, error) {
	in, name := io.Reader(strings.NewReader(sampleMachines)), "the sample"
	if path != "" {
		file, err := os.Open(path)
		if err != nil {
			return nil, config.BadInput("--machines: %w", err)
		}
		defer file.Close()
		in, name = file, path
	}
	rows := csv.NewReader(in)
	rows.TrimLeadingSpace = true
	columns, err := rows.Read()
	if err != nil {
		return nil, config.BadInput("%s: its first line must name the columns: %w", name, err)
	}
	columns[0] = strings.TrimPrefix(columns[0], "\ufeff") // as Excel saves it
	var all []listed
	for {
		cells, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, config.BadInput("%s: %w", name, err)
		}
		one := listed{}
		for i, cell := range cells {
			if err := one.take(columns[i], strings.TrimSpace(cell)); err != nil {
				line, _ := rows.FieldPos(i)
				return nil, config.BadInput("%s, line %d, column %s: %w", name, line, columns[i], err)
			}
		}
		if one.id == "" {
			return nil, config.BadInput("%s: there is no column machineId", name)
		}
		all = append(all, one)
	}
}

// take reads one cell. An empty one is ignored, except for the id, which is required.
func (one *listed) take(column, cell string) (err error) {
	switch strings.ToLower(strings.TrimSpace(column)) {
	case "machineid", "id":
		if one.id = cell; !machineID.MatchString(cell) {
			return fmt.Errorf("%q is not an id of 40 hexadecimal digits", cell)
		}
	case "dnsname", "computerdnsname":
		one.DNSName = cell
	case "ip", "lastipaddress":
		one.IP = cell
	case "aaddeviceid":
		one.AADDeviceID = cell
	case "outcome":
		one.Outcome = cell
	case "offline":
		if cell != "" {
			one.Offline, err = strconv.ParseBool(cell)
		}
	case "pending":
		one.Pending, err = span(cell)
	case "inprogress":
		one.InProgress, err = span(cell)
	default:
		return errors.New("it is none of machineId, dnsName, ip, aadDeviceId, outcome, offline, pending, inProgress")
	}
	return err
}

// span reads a Go duration. For a machine that takes no time it returns a negative one, because zero means the default setting.
func span(cell string) (time.Duration, error) {
	if cell == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(cell)
	if err == nil && d == 0 {
		d = -1
	}
	return d, err
}
