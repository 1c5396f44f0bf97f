package cbsd

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cbsd/cbsdmq"
)

// transferRecord is the file of a transfer.
type transferRecord struct {
	Guest  string    `json:"guest"`
	To     string    `json:"to"`
	Begun  time.Time `json:"begun"`
	Proven bool      `json:"proven"` // it is whole there: what is here may go
}

// transferFile is a file about the moving of a guest from the pool.
func (p *Pool) transferFile(guest, ext string) string {
	return p.path("var", "db", "cbsdmq", "transfer", guest+"."+ext)
}

// record reads the file of a transfer that was begun before.
func (t *transfer) record() (rec transferRecord, resume bool, err error) {
	text, err := os.ReadFile(t.stateFile)
	if errors.Is(err, os.ErrNotExist) {
		return transferRecord{Guest: t.guest, To: t.to.cfg.Workdir, Begun: time.Now().UTC()}, false, nil
	}
	if err != nil {
		return rec, false, err
	}
	if err := json.Unmarshal(text, &rec); err != nil {
		return rec, false, fmt.Errorf("reading %s: %w", t.stateFile, err)
	}
	if rec.To != t.to.cfg.Workdir {
		return rec, false, cbsdmq.Errorf(cbsdmq.CodeRefused, "", "a transfer of %s to %s was begun and has not ended", t.guest, rec.To).
			WithHint("finish that one: move it to %s", rec.To)
	}
	return rec, true, nil
}

func (t *transfer) write(rec transferRecord) error {
	text, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(t.stateFile+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", t.stateFile, err)
	}
	return os.Rename(t.stateFile+".new", t.stateFile)
}
