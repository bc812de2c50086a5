package records_test

import (
	"testing"

	"github.com/gobeequeue/beequeue/internal/queuetest"
)

func TestMain(m *testing.M) { queuetest.Main(m) }
