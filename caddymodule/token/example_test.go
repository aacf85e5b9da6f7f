package token_test

import (
	"context"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/seed-6adbc061/caddy-feature-flags/caddymodule/token"
)

func Example() {
	type user struct{ id, plan string }
	secret := []byte("an example's secret of 32 bytes.")
	verifier, err := token.New(token.Config{Secret: secret, Issuer: "https://issuer.example/"},
		func(claims map[string]any) user {
			id, _ := claims["sub"].(string)
			plan, _ := token.Lookup(claims, "app_metadata.plan")
			return user{id, fmt.Sprint(plan)}
		})
	if err != nil {
		fmt.Println(err)
		return
	}
	verifier.Start(context.Background())
	defer verifier.Stop()

	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	raw, _ := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"iss": "https://issuer.example/", "sub": "42", "exp": now.Add(time.Hour).Unix(),
		"app_metadata": map[string]any{"plan": "pro"},
	}).SignedString(secret)

	u, err := verifier.Verify(now, raw)
	fmt.Println(u.id, u.plan, err)
	_, err = verifier.Verify(now.Add(2*time.Hour), raw)
	fmt.Println(token.Cause(err))
	// Output:
	// 42 pro <nil>
	// expired
}

func ExampleNew_errors() {
	_, err := token.New(token.Config{
		JWKSURL:    "https://issuer.example/.well-known/jwks.json",
		Algorithms: []string{"HS256", "none"},
	}, func(map[string]any) string { return "" })
	fmt.Println(err)
	// Output:
	// jwt: algorithms: "HS256" needs a secret, and only jwks is given
	// jwt: algorithms: "none" is never allowed
}
