package cbsd

import (
	"os"
	"testing"
)

func TestPercent(t *testing.T) {
	for text, want := range map[string]int{
		"": -1, "Creating vm1\n": -1,
		"Size: 4096 Mb\nProgress: 40% \n":                   40,
		"WIP: [0%...14%...23%":                              23,
		"WIP: [0%...14%...100%]\n":                          100,
		"dsk1.vhd   12,345,678  45%    1.2MB/s   0:01:02\r": 45,
		"a.iso                3% of  515 MB 9000 kBps\ra.iso               7% of  515 MB 9000 kBps 10s": 7,
		"90%\nExtracting a -> b ...\n": -1,
		"load 4711%":                   -1, "12.5%": 12, "999%": -1,
	} {
		if got := percent([]byte(text)); got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
	}
}

func TestMeasure(t *testing.T) {
	t.Parallel()
	p := simPool(t)
	create(t, p, bhyve, "vm1") // its disk has 10 MB, of which none is written
	measure := func(line ...string) Moved { return p.Measure(t.Context(), mustPlan(t, p, line...), nil, nil) }
	expect := func(line []string, want Moved) {
		t.Helper()
		if got := measure(line...); got != want {
			t.Errorf("%q: got %+v, want %+v", line, got, want)
		}
	}
	fetch := []string{"fetch_iso", "dstdir=default", "cloud=1", "name=cloud-lab-tiny"}
	expect(fetch, Moved{Percent: -1})
	write(t, p.path("src", "iso", "lab-tiny.raw.xz"), 1<<20)
	expect(fetch, Moved{What: "downloading cloud-lab-tiny", Percent: -1, Bytes: 1 << 20, Of: 2 << 20})
	write(t, p.path("src", "iso", "lab-tiny.raw"), 3<<20)
	expect(fetch, Moved{What: "unpacking cloud-lab-tiny", Percent: -1, Bytes: 3 << 20, Of: 3 << 20})

	clone := []string{"bclone", "old=vm1", "new=vm2"}
	write(t, p.path("jails-data", "vm2-data", ".dsk1.vhd.a7B"), 4<<20) // rsync's name for a part
	expect(clone, Moved{What: "copying vm1", Percent: -1, Bytes: 4 << 20, Of: 10 << 20})

	image := p.path("export", "vm1.img")
	write(t, image, 5000)
	expect([]string{"bexport", "jname=vm1"}, Moved{What: "writing " + image, Percent: -1, Bytes: 5000})
	expect([]string{"bexport", "jname=vm1", "compress=0"}, Moved{What: "writing " + image, Percent: -1, Bytes: 5000, Of: 10 << 20})
	if err := os.WriteFile(image, []byte("___NCSTART_HEADER=1\nimg_flat_size=\"9000\"\n___NCSTOP_HEADER=1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, p.path("jails-data", "tmp.4711", "vm1-data", "dsk1.vhd"), 3000)
	expect([]string{"bimport", "jname=" + image, "new_jname=vm5"}, Moved{What: "unpacking vm5", Percent: -1, Bytes: 3000, Of: 9000})

	must(t, p, "bcreate", "jname=vm3", "vm_os_type=linux", "vm_os_profile=cloud-lab-tiny", "imgsize=10m", "vm_cpus=1", "vm_ram=64m")
	start := []string{"bstart", "jname=vm3"}
	expect(start, Moved{What: "unpacking cloud-lab-tiny", Percent: -1, Bytes: 3 << 20, Of: 3 << 20})
	for _, name := range []string{"lab-tiny.raw.xz", "lab-tiny.raw"} {
		if err := os.Remove(p.path("src", "iso", name)); err != nil {
			t.Fatal(err)
		}
	}
	write(t, p.path("src", "iso", "cbsd-cloud-lab-tiny.raw"), 2<<20)
	write(t, p.path("jails-data", "vm3-data", "dsk1.vhd"), 1<<20)
	expect(start, Moved{What: "copying the image of cloud-lab-tiny", Percent: -1, Bytes: 1 << 20, Of: 2 << 20})
	if m := p.Measure(t.Context(), mustPlan(t, p, "bstart", "jname=vm1"), []byte("Progress: 60% \n"), nil); m.Percent != 60 {
		t.Errorf("from what it prints: %+v", m)
	}
}
