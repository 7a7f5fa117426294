package main

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/go-logr/zapr"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"k8s.io/klog/v2"
)

// newLog logs to w: JSON for machines, or lines for a person who is looking on.
func newLog(w io.Writer, level string, person bool) (*zap.Logger, error) {
	l, err := zapcore.ParseLevel(level)
	if err != nil {
		return nil, err
	}
	return zap.New(zapcore.NewCore(logEncoder(person), zapcore.Lock(zapcore.AddSync(w)), l)), nil
}

func logEncoder(person bool) zapcore.Encoder {
	c := zap.NewProductionEncoderConfig()
	c.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	c.EncodeDuration = zapcore.StringDurationEncoder
	if !person {
		c.TimeKey = "time"
		return zapcore.NewJSONEncoder(c)
	}
	c.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05")
	c.EncodeLevel = zapcore.CapitalLevelEncoder
	return zapcore.NewConsoleEncoder(c)
}

// takeKlog makes client-go, which logs through klog, log here. klog has one logger for the
// whole process.
func takeKlog(log *zap.Logger) {
	klog.SetLogger(zapr.NewLogger(log.Named("client-go")))
}

// accessLogFlush is how late a line may be. Lines are written many at a time: a write of its
// own for each request would cost more than the request.
const accessLogFlush = time.Second

// newAccessLog logs requests: one JSON object a line, with the time and nothing else but what
// the proxy says. It is nil for "off". done writes what is left, and closes the file.
func newAccessLog(where string, stdout, stderr io.Writer) (log *zap.Logger, done func() error, err error) {
	done = func() error { return nil }
	var w io.Writer
	switch where {
	case "off", "":
		return nil, done, nil
	case "stdout":
		w = stdout
	case "stderr":
		w = stderr
	default:
		f, err := os.OpenFile(where, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
		if err != nil {
			return nil, done, wrongValue("access-log", where, plain(err))
		}
		w, done = f, f.Close
	}
	c := zapcore.EncoderConfig{
		TimeKey:        "time",
		EncodeTime:     zapcore.RFC3339NanoTimeEncoder,
		EncodeDuration: zapcore.SecondsDurationEncoder,
	}
	buffered := &zapcore.BufferedWriteSyncer{WS: zapcore.AddSync(w), FlushInterval: accessLogFlush}
	core := zapcore.NewCore(zapcore.NewJSONEncoder(c), buffered, zapcore.InfoLevel)
	return zap.New(core), func() error { return errors.Join(buffered.Stop(), done()) }, nil
}
