package broker

import "testing"

func TestFullness(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct{ used, free, size, own, disk uint64 }{
		{0, 100 * gib, 200 * gib, 0, 0},
		{embeddedMaxStore / 2, 20 * gib, 1000 * gib, 50, 0}, // a disk that is 98 % full, and has room for all that the store may take
		{embeddedMaxStore / 10 * 9, 100 * gib, 200 * gib, 89, 0},
		{2 * embeddedMaxStore, 100 * gib, 200 * gib, 200, 0},
		{gib, 2 * gib, 10 * gib, 6, 80},
		{gib, 0, 10 * gib, 6, 100},
		{gib, 0, 0, 6, 0},
	} {
		if own, disk := fullness(c.used, c.free, c.size); own != c.own || disk != c.disk {
			t.Errorf("%+v: %d%% and %d%%", c, own, disk)
		}
	}
}
