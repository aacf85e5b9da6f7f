package caddymodule

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "feature-flags",
		Usage: "list|show|enable|disable|reset|rollout|override-link|evaluate|audit|watch|lint|simulate [--address <interface>] [--config <path>] [--json]",
		Short: "Sees and steers feature flags",
		Long: `Sees and steers the feature flags of a running Caddy through its admin API.

evaluate and lint also work on a features file, with no server: --flags FILE.
simulate always does.`,
		CobraFunc: buildCommand,
	})
}

// errFindings ends a command with status 1 when its output says why already.
var errFindings = errors.New("findings")

func buildCommand(root *cobra.Command) {
	// A word that is no subcommand must not pass for success: `dsable` would
	// leave the flag on.
	root.Run = nil
	root.Args, root.SilenceUsage = cobra.ArbitraryArgs, true
	root.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return c.Help()
		}
		var names []string
		for _, sub := range c.Commands() {
			names = append(names, sub.Name())
		}
		return fmt.Errorf("unknown command %q%s; there are %s", args[0], didYouMean(args[0], names), strings.Join(names, ", "))
	}
	p := root.PersistentFlags()
	p.String("address", "", "The admin API's address, if not the default")
	p.StringP("config", "c", "", "Config file to find the admin API's address in")
	p.StringP("adapter", "a", "", "Name of the config adapter, if --config is no JSON and no Caddyfile")
	p.Bool("json", false, "Print JSON as the API answers it")

	add := func(use, short string, args cobra.PositionalArgs, run func(*cobra.Command, []string) error) *cobra.Command {
		c := &cobra.Command{Use: use, Short: short, Args: args, SilenceUsage: true}
		c.RunE = func(c *cobra.Command, args []string) error {
			err := run(c, args)
			if errors.Is(err, errFindings) {
				c.SilenceErrors = true
			}
			return err
		}
		root.AddCommand(c)
		return c
	}
	add("list", "Lists all flags", cobra.NoArgs, runList)
	add("show <flag>", "Shows a flag: definition, state, figures, open trips", cobra.ExactArgs(1), runShow)
	audited := func(c *cobra.Command) {
		c.Flags().String("reason", "", "Why, for the audit log")
		c.Flags().String("by", "", "Who, for the audit log (default: the user's name here)")
	}
	for _, order := range []struct{ name, short string }{
		{"enable", "Turns a flag on as if it were active; its targeting stays in force"},
		{"disable", "Turns a flag off for everyone, at once"},
		{"reset", "Clears a flag's trips and override, and arms it anew"},
	} {
		c := add(order.name+" <flag>", order.short, cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
			return runOrder(c, order.name, args[0])
		})
		audited(c)
	}
	steer := add("rollout <flag> pause|resume|promote|abort|<percentage>", "Steers a flag's rollout, or sets its percentage", cobra.ExactArgs(2), runRollout)
	audited(steer)
	link := add("override-link <url> <flag>=<variant>...", "Makes a signed link that shows a tester a variant", cobra.MinimumNArgs(2), runOverrideLink)
	link.Flags().String("for", "8h", "How long it holds, up to 30d")
	link.Flags().Bool("force", false, "Also where the flag has tripped or is disabled")
	link.Flags().Bool("cookie", false, "Print the cookie, for clients that follow no links")
	link.Flags().String("key-env", "", "Sign here, with the key in this environment variable, instead of the running Caddy")
	audited(link)
	evaluate := add("evaluate [flag...]", "Decides flags for a context and explains how", cobra.ArbitraryArgs, runEvaluate)
	evaluate.Flags().String("flags", "", "A features file to decide by, instead of the running Caddy")
	evaluate.Flags().String("contexts", "", "A file with one {context, environment, at} a line ('-': standard input); prints one line of decisions for each")
	evaluate.Flags().String("context", "", `The context as JSON, as '{"user_id": 7, "region": "RO"}'`)
	evaluate.Flags().String("environment", "", "The environment (default: the running Caddy's, production for a file)")
	evaluate.Flags().String("at", "", "The time to decide for, as 2026-01-31T12:00:00Z (default: now)")
	evaluate.Flags().Bool("explain", false, "With --contexts: add the path of each decision")
	evaluate.MarkFlagsMutuallyExclusive("context", "contexts")
	audit := add("audit", "Shows who did what, newest first", cobra.NoArgs, runAudit)
	audit.Flags().String("flag", "", "Of one flag only")
	audit.Flags().Int("limit", 50, "How many entries")
	feedback := add("feedback <flag>", "Shows what people have said about a flag, newest first", cobra.ExactArgs(1), runFeedback)
	feedback.Flags().Int("limit", 20, "How many of them")
	add("watch", "Follows trips, resets, overrides and reloads as they happen", cobra.NoArgs, runWatch)
	addSimulate(add("simulate", "Replays a trace, an access log or a scenario through a flag's guard", cobra.NoArgs, runSimulate))
	lint := add("lint", "Finds definitions that do nothing, contradict themselves or are overdue", cobra.NoArgs, runLint)
	lint.Flags().String("flags", "", "A features file, instead of the running Caddy")
}

// api calls the admin API and decodes the answer; raw is the answer's text.
func api(c *cobra.Command, method, path string, body, into any) (raw []byte, err error) {
	// Each call has a connection of its own, so it must not be kept.
	resp, err := callAPI(c, method, path, http.Header{"Connection": {"close"}}, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if raw, err = io.ReadAll(io.LimitReader(resp.Body, 256<<20)); err != nil {
		return nil, fmt.Errorf("reading the answer of the admin API: %w", err)
	}
	if into != nil {
		if err := json.Unmarshal(raw, into); err != nil {
			return raw, fmt.Errorf("reading the answer of the admin API: %w", err)
		}
	}
	return raw, nil
}

func callAPI(c *cobra.Command, method, path string, headers http.Header, body any) (*http.Response, error) {
	get := func(name string) string { s, _ := c.Flags().GetString(name); return s }
	address, err := caddycmd.DetermineAdminAPIAddress(get("address"), nil, get("config"), get("adapter"))
	if err != nil {
		return nil, fmt.Errorf("finding the admin API: %w", err)
	}
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		reader = bytes.NewReader(text)
		headers.Set("Content-Type", "application/json")
	}
	resp, err := caddycmd.AdminAPIRequest(address, method, "/feature_flags/"+path, headers, reader)
	if err != nil {
		return nil, apiError(address, err)
	}
	return resp, nil
}

// apiError says what Caddy's client has to say as people would.
func apiError(address string, err error) error {
	answer, refused := strings.CutPrefix(err.Error(), "caddy responded with error: HTTP ")
	if !refused {
		return fmt.Errorf("no answer from the admin API at %s (is Caddy running? --address or --config say where): %w", address, err)
	}
	_, text, _ := strings.Cut(answer, ": ")
	var said struct{ Error string }
	switch {
	case json.Unmarshal([]byte(text), &said) == nil && said.Error != "":
		return errors.New(printable(said.Error))
	case strings.HasPrefix(answer, "404:"):
		return fmt.Errorf("the Caddy at %s has no feature_flags plugin", address)
	}
	return errors.New(printable(err.Error()))
}

func flagPath(name string) string { return "flags/" + url.PathEscape(name) }

func wantsJSON(c *cobra.Command) bool { b, _ := c.Flags().GetBool("json"); return b }

// whoami is the default of --by.
func whoami() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return "command line"
}

func runOrder(c *cobra.Command, order, flag string) error {
	return give(c, order, flag, map[string]any{})
}

func runRollout(c *cobra.Command, args []string) error {
	body := map[string]any{"action": args[1]}
	if percentage, err := strconv.ParseFloat(strings.TrimSuffix(args[1], "%"), 64); err == nil {
		body = map[string]any{"percentage": percentage}
	}
	return give(c, "rollout", args[0], body)
}

// give orders something of a flag, and prints what the flag is then.
func give(c *cobra.Command, order, flag string, body map[string]any) error {
	body["reason"], _ = c.Flags().GetString("reason")
	by, _ := c.Flags().GetString("by")
	body["by"] = cmp.Or(by, whoami())
	var v flagView
	raw, err := api(c, http.MethodPost, flagPath(flag)+"/"+order, body, &v)
	if err != nil {
		return err
	}
	if wantsJSON(c) {
		return printRaw(raw)
	}
	fmt.Printf("%s: %s\n", v.Name, v.Status)
	if v.Rollout != nil {
		fmt.Println(describeRollout(v.Rollout))
	}
	if v.Warning != "" {
		fmt.Fprintln(os.Stderr, "warning:", printable(v.Warning))
	}
	return nil
}

func runOverrideLink(c *cobra.Command, args []string) error {
	get := func(name string) string { s, _ := c.Flags().GetString(name); return s }
	q := linkRequest{URL: args[0], Flags: map[string]string{}, For: get("for"), Reason: get("reason"), By: cmp.Or(get("by"), whoami())}
	q.Force, _ = c.Flags().GetBool("force")
	for _, arg := range args[1:] {
		flag, variant, found := strings.Cut(arg, "=")
		if !found || flag == "" || variant == "" {
			return fmt.Errorf("want a flag and a variant as new_ui=on, got %q", arg)
		}
		q.Flags[flag] = variant
	}
	var made linkReply
	if name := get("key-env"); name != "" {
		s, err := newSigner("override", os.Getenv(name))
		if err != nil {
			return fmt.Errorf("--key-env %s: %w", name, err)
		}
		if made, err = makeLink(s, q, time.Now()); err != nil {
			return err
		}
	} else if _, err := api(c, http.MethodPost, "override_link", q, &made); err != nil {
		return err
	}
	cookie, _ := c.Flags().GetBool("cookie")
	switch {
	case wantsJSON(c):
		text, err := json.Marshal(made)
		if err != nil {
			return err
		}
		return printRaw(text)
	case cookie:
		fmt.Println(made.Cookie)
	default:
		fmt.Println(made.Link)
	}
	fmt.Fprintf(os.Stderr, "link %s holds until %s\n", made.ID, made.Expires.Local().Format(time.DateTime))
	return nil
}

func runAudit(c *cobra.Command, _ []string) error {
	flag, _ := c.Flags().GetString("flag")
	limit, _ := c.Flags().GetInt("limit")
	var answer struct {
		Entries []struct {
			At                       time.Time
			Action, Flag, By, Reason string
		}
	}
	query := url.Values{"limit": {fmt.Sprint(limit)}}
	if flag != "" {
		query.Set("flag", flag)
	}
	raw, err := api(c, http.MethodGet, "audit?"+query.Encode(), nil, &answer)
	if err != nil {
		return err
	}
	if wantsJSON(c) {
		return printRaw(raw)
	}
	t := newTable("TIME", "ACTION", "FLAG", "BY", "REASON")
	for _, e := range answer.Entries {
		t.row(e.At.Local().Format(time.DateTime), e.Action, e.Flag, e.By, e.Reason)
	}
	return t.flush()
}

func printRaw(raw []byte) error {
	_, err := os.Stdout.Write(append(bytes.TrimSpace(raw), '\n'))
	return err
}
