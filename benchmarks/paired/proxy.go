package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	_ "net/http/pprof" // for -profile
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/seed-6adbc061/caddy-feature-flags"
)

// What the parent tells the child: the origin's address, the names of the sites
// to serve, by semicolon, and a directory to leave files in.
const (
	originEnv = "PAIRED_ORIGIN"
	sitesEnv  = "PAIRED_SITES"
	dirEnv    = "PAIRED_DIR"
)

// runProxy is the child: Caddy with a few sites, on a core of its own.
func runProxy() error {
	pin(0)
	runtime.GOMAXPROCS(1)
	dir, origin := os.Getenv(dirEnv), os.Getenv(originEnv)
	for _, name := range []string{"XDG_DATA_HOME", "XDG_CONFIG_HOME"} {
		if err := os.Setenv(name, dir); err != nil {
			return err
		}
	}
	var config strings.Builder
	fmt.Fprint(&config, "{\nadmin off\nauto_https off\npersist_config off\nlog {\nlevel ERROR\n}\n")
	wanted := strings.Split(os.Getenv(sitesEnv), ";")
	all := slices.Concat(measured(origin), weighed(origin), mirrored(origin))
	features, hello := "", greeting{}
	var sites strings.Builder
	for _, name := range wanted {
		i := slices.IndexFunc(all, func(s site) bool { return s.name == name })
		if i < 0 {
			return fmt.Errorf("no target %q", name)
		}
		s := all[i]
		requests, err := s.requests(dir)
		if err != nil {
			return err
		}
		port, err := freePort()
		if err != nil {
			return err
		}
		fmt.Fprintf(&sites, "http://:%d {\nbind 127.0.0.1\n%s}\n", port, strings.ReplaceAll(s.config, "DIR", dir))
		if s.features != "" {
			features = s.features
		}
		hello.Targets = append(hello.Targets, target{Address: fmt.Sprintf("127.0.0.1:%d", port), Requests: requests})
	}
	if features != "" {
		file := filepath.Join(dir, "features.json")
		if err := os.WriteFile(file, []byte(features), 0o600); err != nil {
			return err
		}
		fmt.Fprintf(&config, "feature_flags {\nsource file %s\nstate local %s\n}\n", file, filepath.Join(dir, "state"))
	}
	fmt.Fprintf(&config, "}\n%s", sites.String())
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(config.String()), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return err
	}
	if err := caddy.Load(adapted, true); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	hello.Control = l.Addr().String()
	if err := json.NewEncoder(os.Stdout).Encode(hello); err != nil {
		return err
	}
	http.HandleFunc("/mallocs", func(w http.ResponseWriter, _ *http.Request) {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fmt.Fprintln(w, m.Mallocs)
	})
	http.HandleFunc("/collect", func(w http.ResponseWriter, _ *http.Request) {
		debug.FreeOSMemory()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fmt.Fprintln(w, m.HeapAlloc)
	})
	return http.Serve(l, nil)
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
