package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cbsd/cbsdmq/e2e/judge"
)

// runsJob reports whether the process has the environment of a job. A pid that
// was given again has not.
func runsJob(pid int, job string) bool {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	return err == nil && strings.Contains("\x00"+string(env), "\x00CBSDMQ_JOB="+job+"\x00")
}

// rss is what a process has in memory, in kB; 0 where that is not known.
func rss(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n
		}
	}
	return 0
}

// descriptors is how many files a process has open.
func descriptors(pid int) int64 {
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return 0
	}
	return int64(len(list))
}

// opened names the files that a process has open.
func opened(pid int) (names []string) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	list, _ := os.ReadDir(dir)
	for _, e := range list {
		if name, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			names = append(names, name)
		}
	}
	return names
}

// threads are those of the system, which follow goroutines that block.
func threads(pid int) int64 {
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return 0
	}
	return int64(len(list))
}

// usage is how many bytes and files are below dir.
func usage(dir string) (bytes, files int64) {
	// What vanishes meanwhile does not count.
	_ = filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if info, err := e.Info(); err == nil {
				bytes += info.Size()
				files++
			}
		}
		return nil //nolint:nilerr // see above
	})
	return bytes, files
}

// measures are the resources of a world now, by name.
func (w *world) measures() map[string]int64 {
	m := make(map[string]int64)
	for _, p := range w.pools {
		p.mu.Lock()
		pid := 0
		if p.agent != nil {
			pid = p.agent.pid()
		}
		p.mu.Unlock()
		m["descriptors of the agent of "+p.name] = descriptors(pid)
		m["memory of the agent of "+p.name] = rss(pid)
		bytes, _ := usage(p.journal)
		m["journal of "+p.name] = bytes >> 10
		log, _ := usage(filepath.Join(w.dir, p.name+".log"))
		m["log of "+p.name] = log >> 10
		m["commands at work in "+p.name] = int64(len(p.atWork()))
	}
	pid := w.runner()
	m["descriptors of the runner of "+w.broker.Name] = descriptors(pid)
	m["memory of the runner of "+w.broker.Name] = rss(pid)
	_, files := usage(w.runDir())
	m["files of the runner of "+w.broker.Name] = files
	return m
}

// room is how much more there may be after a run of so many jobs.
func room(name string, jobs, deeds int) (n int64, unit string) {
	kind, _, _ := strings.Cut(name, " of ")
	switch kind {
	case "descriptors":
		return 16, "descriptors" // connections that are made new
	case "memory":
		return 40 << 10, "kB" // the garbage collector has some room of its own
	case "journal":
		return int64(jobs)*64 + 8<<10, "kB"
	case "log":
		return int64(jobs)/2 + int64(deeds)*16 + 64, "kB"
	case "files":
		return 2*workers*2 + 24, "files"
	}
	return 0, ""
}

// compare makes the judge's measures. What grew too much is noted in detail.
func (w *world) compare(before map[string]int64, jobs, deeds int) (ms []judge.Measure) {
	for name, n := range w.measures() {
		more, unit := room(name, jobs, deeds)
		if w.broker.Direct && strings.HasPrefix(name, "memory of the agent") {
			more = 192 << 10 // it may be the server by now, and was not before
		}
		if n > before[name]+more && unit == "descriptors" {
			for _, p := range w.pools {
				p.mu.Lock()
				w.note("descriptors of the agent of %s: %s", p.name, strings.Join(opened(p.agent.pid()), " "))
				p.mu.Unlock()
			}
		}
		ms = append(ms, judge.Measure{Name: name, Before: before[name], After: n, Room: more, Unit: unit})
	}
	return ms
}
