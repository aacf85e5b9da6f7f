package evaluator

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
)

// explainCEL says in one line what is wrong with a condition, in an operator's
// words and with the place in the condition.
func explainCEL(text string, issues *cel.Issues) error {
	if issues == nil || issues.Err() == nil {
		return nil
	}
	var all []error
	for _, e := range issues.Errors() {
		message, isSyntax := inPlainWords(text, e)
		if at := placeInCondition(text, e.Location); at != "" {
			message += " " + at
		}
		all = append(all, errors.New(message))
		if isSyntax || len(all) == 3 {
			break // what follows a syntax error are its consequences
		}
	}
	return errors.Join(all...)
}

func placeInCondition(text string, at common.Location) string {
	switch {
	case at.Line() < 1 || at.Column() < 0:
		return ""
	case strings.Contains(text, "\n"):
		return fmt.Sprintf("(line %d, character %d of the condition)", at.Line(), at.Column()+1)
	}
	return fmt.Sprintf("(character %d of the condition)", at.Column()+1)
}

var (
	celInput    = regexp.MustCompile(`^Syntax error: (?:mismatched|extraneous|missing) (?:input )?(?:'([^']*)'|at) ?(?:at )?(?:'([^']*)')?`)
	celToken    = regexp.MustCompile(`^Syntax error: token recognition error at: '(.*)'$`)
	celOverload = regexp.MustCompile(`^found no matching overload for '(.*)' applied to '(.*)'$`)
	celUnknown  = regexp.MustCompile(`^undeclared reference to '([^']*)'`)
	celType     = regexp.MustCompile(`^expected type '(.*)' but found '(.*)'$`)
)

// celFunctions are those that a mistyped name may have meant.
var celFunctions = []string{
	"semver", "segment", "matches", "startsWith", "endsWith", "contains", "size", "has", "all", "exists", "exists_one", "filter", "map",
	"int", "double", "string", "bool", "timestamp", "duration", "lowerAscii", "upperAscii", "trim", "split", "substring", "indexOf", "replace", "join",
}

// inPlainWords translates CEL's message, or gives it as it is. isSyntax tells
// that the condition could not be read at all.
func inPlainWords(text string, e *common.Error) (message string, isSyntax bool) {
	message = strings.ReplaceAll(e.Message, "\n", " ")
	switch {
	case celToken.MatchString(message):
		return unexpected(strings.TrimSpace(celToken.FindStringSubmatch(message)[1])), true
	case strings.HasPrefix(message, "Syntax error: "):
		m := celInput.FindStringSubmatch(message)
		switch {
		case m == nil:
			return strings.ToLower(message[:1]) + clip(message[1:]), true
		case strings.Contains(message, "<EOF>' expecting") || strings.Contains(message, "at '<EOF>'"):
			return "the condition ends too early", true
		case m[2] != "":
			return fmt.Sprintf("want %q before %q", m[1], m[2]), true
		}
		return unexpected(m[1]), true
	case celUnknown.MatchString(message):
		name := celUnknown.FindStringSubmatch(message)[1]
		if strings.HasPrefix(textAt(text, e.Location), "(") {
			if name == "segment" {
				return `segment: want one name in quotes, as segment("beta")`, false
			}
			return fmt.Sprintf("unknown function %q%s", clip(name), didYouMean(name, celFunctions)), false
		}
		return fmt.Sprintf("%q is a word of CEL's; for an attribute of that name write attributes[%q]", clip(name), clip(name)), false
	case celOverload.MatchString(message):
		m := celOverload.FindStringSubmatch(message)
		message = fmt.Sprintf("%s does not take %s", celOperator(m[1]), m[2])
		if strings.Contains(m[2], "type(") {
			message += `; for an attribute that has the name of a CEL type write attributes["type"]`
		}
		return clip(message), false
	case celType.MatchString(message):
		m := celType.FindStringSubmatch(message)
		return fmt.Sprintf("want %s, got %s", m[1], m[2]), false
	case strings.HasPrefix(message, "invalid argument to has()"):
		return "has: want a part of an attribute, as has(user.plan); whether there is an attribute asks `\"region\" in attributes`", false
	}
	return clip(message), false
}

func unexpected(token string) string {
	switch strings.ToLower(token) {
	case "=":
		return "unexpected \"=\"; equality is =="
	case "and", "&":
		return fmt.Sprintf("unexpected %q; conditions are joined by &&", token)
	case "or", "|":
		return fmt.Sprintf("unexpected %q; conditions are joined by ||", token)
	}
	if strings.HasPrefix(token, `"`) || strings.HasPrefix(token, "'") {
		return "a text is not closed: " + clip(token)
	}
	return fmt.Sprintf("unexpected %q", clip(token))
}

// textAt returns the condition from a place on.
func textAt(text string, at common.Location) string {
	lines := strings.Split(text, "\n")
	if at.Line() < 1 || at.Line() > len(lines) {
		return ""
	}
	line := []rune(lines[at.Line()-1])
	if at.Column() < 0 || at.Column() > len(line) {
		return ""
	}
	return string(line[at.Column():])
}

// celOperator writes _==_ as ==.
func celOperator(name string) string {
	if plain := strings.NewReplacer("_", "", "@", "").Replace(name); !strings.ContainsAny(plain, "abcdefghjklmopqrstuvwxyz") && plain != "" {
		return plain
	}
	return strings.TrimPrefix(name, "@")
}
