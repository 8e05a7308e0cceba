package deploy

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestImagesOfOthers: deploy/images.txt is what is pinned and what "make images" renews, so each image of others stands there
// as it is used, with its digest where it has one, and nothing stands there that is used nowhere.
func TestImagesOfOthers(t *testing.T) {
	var listed, used []string
	form := regexp.MustCompile(`^[a-z0-9.-]+\.[a-z]+/[a-z0-9/._-]+:[A-Za-z0-9._-]+(@sha256:[0-9a-f]{64})?$`)
	for line := range strings.Lines(string(read(t, repository+"/deploy/images.txt"))) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "#") {
			listed = append(listed, line)
			if !form.MatchString(line) {
				t.Errorf("images.txt: %q is no name of an image with a host and a tag", line)
			}
		}
	}
	use := regexp.MustCompile(`(?m)^(?:FROM (?:--platform=\S+ )?|\s*image: )(\S+)`)
	for _, file := range []string{"Dockerfile", "deploy/package/Dockerfile", "deploy/compose.yaml"} {
		for _, m := range use.FindAllStringSubmatch(string(read(t, repository+"/"+file)), -1) {
			if m[1] == "unrestrict-worker" {
				continue // ours
			}
			if used = append(used, m[1]); !slices.Contains(listed, m[1]) {
				t.Errorf("%s uses %s, which deploy/images.txt does not have like that", file, m[1])
			}
		}
	}
	for _, image := range listed {
		if !slices.Contains(used, image) {
			t.Errorf("deploy/images.txt has %s, which nothing uses", image)
		}
	}
}
