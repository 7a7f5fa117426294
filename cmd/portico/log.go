package main

import (
	"io"

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
