package journal

func writeUntilKilled() error { return nil }
func holdUntilKilled() error  { return nil }
