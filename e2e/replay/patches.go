package main

// A patch replaces the only occurrence of a text in a file of the standard
// library.
type patch struct{ file, old, new string }

var patches = []patch{
	// Each synctest bubble has random numbers of its own, always the same.
	{"runtime/synctest.go", "	id      uint64 // unique id\n", "	id      uint64 // unique id\n	rng     uint64\n"},
	{"runtime/rand.go", "func rand() uint64 {\n", `func rand() uint64 {
	if gp := getg().m.curg; gp != nil && gp.bubble != nil {
		return gp.bubble.random()
	}
`},
	{"runtime/rand.go", "// mrandinit initializes", `// random is splitmix64.
//
//go:nosplit
func (b *synctestBubble) random() uint64 {
	b.rng += 0x9e3779b97f4a7c15
	x := b.rng
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Timers are set by the scheduler too, for no goroutine.
var timerRandom uint32

func randomOfTimer() uint32 {
	timerRandom = timerRandom*1664525 + 1013904223
	return timerRandom
}

func randomInBubble(n uint32) uint32 {
	if gp := getg().m.curg; gp != nil && gp.bubble != nil {
		return uint32(gp.bubble.random()>>33) % n
	}
	return cheaprandn(n)
}

// mrandinit initializes`},
	{"runtime/select.go", "		j := cheaprandn(uint32(norder + 1))", "		j := randomInBubble(uint32(norder + 1))"},
	{"runtime/time.go", "			t.rand = cheaprand()\n", "			t.rand = randomOfTimer()\n"},
	// The order of a map follows from its keys.
	{"runtime/alg.go", "		hashkey[i] = uintptr(bootstrapRand())", "		hashkey[i] = uintptr(0x9e3779b97f4a7c15 >> i)"},
	{"runtime/alg.go", "		key[i] = bootstrapRand()", "		key[i] = 0x9e3779b97f4a7c15 * uint64(i+1)"},
	// A goroutine has the processor until it gives it away, in system calls too.
	{"runtime/proc.go", "func retake(now int64) uint32 {\n", "func retake(now int64) uint32 {\n	if now != 0 {\n		return 0\n	}\n"},
	// Who waits for a mutex gets it in turn, however long that takes by the clock.
	{"internal/sync/mutex.go", "			starving = starving || runtime_nanotime()-waitStartTime > starvationThresholdNs\n", ""},
	// Every bubble finds the scheduler at the same point of its round.
	{"runtime/synctest.go", "	bubble.now = synctestBaseTime\n", "	bubble.now = synctestBaseTime\n	getg().m.p.ptr().schedtick = 0\n	timerRandom = 0\n"},
}
