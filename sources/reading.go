package sources

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

const (
	// quiet is how long a file must have been left alone before it is read, so that what a writer has begun is whole.
	// A writer that pauses for longer is taken to be done.
	quiet = 45 * time.Millisecond
	// patience is how long a file that is never left alone is waited for. Then it is read as it is.
	patience = time.Second
	// skew is by how much the clock of a file server may be ahead for its times to be believed.
	skew = time.Second
)

// reading is one reading of a file.
type reading struct {
	body  []byte
	stamp stamp
	at    time.Time
}

// readWhole reads a file that nobody is writing to, or what there is of it after patience. known is the stamp of the last
// reading, if there was one. Errors have neither path nor operation.
func readWhole(ctx context.Context, path string, known stamp, maxSize int64) (reading, error) {
	deadline := time.Now().Add(patience)
	waited := stamp{}
	missing := false
	for {
		before, err := stat(path)
		if errors.Is(err, fs.ErrNotExist) && !missing {
			// Some editors remove the file before they write the new one.
			missing = true
			if err := sleep(ctx, quiet); err != nil {
				return reading{}, err
			}
			continue
		}
		if err == nil {
			err = check(before.info, maxSize)
		}
		if err != nil {
			return reading{}, err
		}
		now := time.Now()
		late := !now.Before(deadline)
		if wait := unrest(before, known, waited, now); wait > 0 && !late {
			waited = before
			if err := sleep(ctx, wait); err != nil {
				return reading{}, err
			}
			continue
		}
		r, err := readOnce(path, maxSize)
		if err == nil && (late || before.same(r.stamp)) {
			return r, nil
		}
		if err != nil && late {
			return reading{}, err
		}
		// It was written to or replaced meanwhile.
		if err := sleep(ctx, quiet); err != nil {
			return reading{}, err
		}
	}
}

// unrest is how long to wait before the file can be taken to have been left alone. known is the stamp of the last
// reading, waited the one that was waited for already; both may be none.
func unrest(s, known, waited stamp, now time.Time) time.Duration {
	age := s.age(now)
	switch {
	case s.halfway(known):
		return quiet
	case s.same(waited):
		return 0
	case known.known() && !s.same(known), s.size == 0, age < 0 && age >= -skew:
		// The modification time is not to be relied on: see halfway, which has to know what was there before.
		return quiet
	case age >= 0 && age < quiet:
		return quiet - age
	default:
		return 0
	}
}

// readOnce reads a file from one opening. The stamp is that of the file under the path when all was read, or none when
// that is another one.
func readOnce(path string, maxSize int64) (reading, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return reading{}, bare(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return reading{}, bare(err)
	}
	if err := check(info, maxSize); err != nil {
		return reading{}, err
	}
	var body bytes.Buffer
	body.Grow(int(info.Size()) + bytes.MinRead) // Else it would grow by doubling.
	n, err := body.ReadFrom(io.LimitReader(f, maxSize+1))
	if err != nil {
		return reading{}, bare(err)
	}
	if n > maxSize {
		return reading{}, fmt.Errorf("is at least %d bytes long, want at most %d", n, maxSize) // It grew meanwhile.
	}
	at := time.Now()
	opened, err := f.Stat()
	if err != nil {
		return reading{}, bare(err)
	}
	r := reading{body: body.Bytes(), at: at}
	after, err := stat(path)
	if err == nil && n == opened.Size() && after.same(stampOf(opened)) {
		r.stamp = after
	}
	return r, nil
}

func stat(path string) (stamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}, bare(err)
	}
	return stampOf(info), nil
}

// check refuses what is not to be read.
func check(info fs.FileInfo, maxSize int64) error {
	switch mode := info.Mode(); {
	case mode.IsDir():
		return errors.New("is a directory, want a regular file")
	case mode&fs.ModeNamedPipe != 0:
		return errors.New("is a named pipe, want a regular file")
	case mode&fs.ModeSocket != 0:
		return errors.New("is a socket, want a regular file")
	case mode&fs.ModeDevice != 0:
		return errors.New("is a device, want a regular file")
	case !mode.IsRegular():
		return errors.New("is a special file, want a regular file")
	case info.Size() > maxSize:
		return fmt.Errorf("is %d bytes long, want at most %d", info.Size(), maxSize)
	}
	return nil
}

// bare takes operation and path off an error, which the caller puts before it in house style.
func bare(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// sleep waits for d or for ctx, whose error it returns.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
