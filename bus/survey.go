package bus

import "context"

// A Finding is what a Surveyor has to tell a person.
type Finding struct {
	Warning bool
	Text    string
	Hint    string // the way out
}

// A Surveyor is a Driver of a broker that may be several servers: it looks at
// each of them and at where the tubes are kept. It changes nothing.
type Surveyor interface {
	Survey(ctx context.Context, tubes ...Tube) ([]Finding, error)
}

// Survey asks the driver, if it is a Surveyor; it returns nothing otherwise.
func (b *Bus) Survey(ctx context.Context, tubes ...Tube) ([]Finding, error) {
	s, ok := b.driver.(Surveyor)
	if !ok {
		return nil, nil
	}
	return s.Survey(ctx, tubes...)
}
