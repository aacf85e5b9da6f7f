package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
)

// connection is a client that costs next to nothing itself.
type connection struct {
	conn     net.Conn
	in       *bufio.Reader
	requests [][]byte
	next     int
}

// dial connects to a site, which gets the requests in turn.
func dial(address string, requests []string) (*connection, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	c := &connection{conn: conn, in: bufio.NewReader(conn)}
	for _, r := range requests {
		c.requests = append(c.requests, []byte(r))
	}
	return c, nil
}

// crowd are clients that ask at once.
type crowd []*connection

// dialAll connects n of them. Each begins at another of the requests.
func dialAll(t target, n int) (all crowd, err error) {
	for k := range n {
		c, err := dial(t.Address, t.Requests)
		if err != nil {
			all.close()
			return nil, err
		}
		c.next = k * len(t.Requests) / n
		all = append(all, c)
	}
	return all, nil
}

func (all crowd) close() {
	for _, c := range all {
		c.close()
	}
}

// run has them send n requests together.
func (all crowd) run(n int) error {
	if len(all) == 1 {
		return all[0].run(n)
	}
	errs := make([]error, len(all))
	var asking sync.WaitGroup
	for k, c := range all {
		asking.Go(func() { errs[k] = c.run(n / len(all)) })
	}
	asking.Wait()
	return errors.Join(errs...)
}

func (c *connection) close() { _ = c.conn.Close() }

// run sends n requests, one after the other.
func (c *connection) run(n int) error {
	for range n {
		if err := c.do(c.requests[c.next%len(c.requests)]); err != nil {
			return err
		}
		c.next++
	}
	return nil
}

func (c *connection) do(request []byte) error {
	if _, err := c.conn.Write(request); err != nil {
		return err
	}
	status, err := c.in.ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(status, "HTTP/1.1 200") {
		return fmt.Errorf("answered %q", strings.TrimSpace(status))
	}
	length := 0
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return err
		}
		if line == "\r\n" {
			break
		}
		if v, ok := strings.CutPrefix(line, "Content-Length: "); ok {
			if length, err = strconv.Atoi(strings.TrimSpace(v)); err != nil {
				return err
			}
		}
	}
	_, err = io.CopyN(io.Discard, c.in, int64(length))
	return err
}
