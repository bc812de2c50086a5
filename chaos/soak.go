package main

import (
	"context"
	"errors"
	"time"
)

func soak(context.Context, *library, time.Duration) error { return errors.New("not yet") }
