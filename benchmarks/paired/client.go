package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// target is one site of the proxy and what is asked of it.
type target struct {
	Name    string
	Address string
	Plain   string   // the target it is compared with; "" is one to compare with
	Figure  string   // to reach
	Heads   []string // header lines, sent in turn: one a request

	samples []sample
}

// greeting is what the proxy tells when it is ready.
type greeting struct {
	Control string
	Targets []*target
}

// connection is a client that costs next to nothing itself.
type connection struct {
	conn     net.Conn
	in       *bufio.Reader
	requests [][]byte
}

func dial(t *target) (*connection, error) {
	conn, err := net.Dial("tcp", t.Address)
	if err != nil {
		return nil, err
	}
	c := &connection{conn: conn, in: bufio.NewReader(conn)}
	for _, h := range t.Heads {
		c.requests = append(c.requests, []byte("GET /shop?item=7 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) Firefox/150.0\r\nAccept: */*\r\n"+h+"\r\n"))
	}
	return c, nil
}

func (c *connection) close() { _ = c.conn.Close() }

func (c *connection) do(i int) error {
	if _, err := c.conn.Write(c.requests[i%len(c.requests)]); err != nil {
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
