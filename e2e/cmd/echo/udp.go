package main

import "net"

// answerPackets answers every packet with the Pod and the sender until conn is closed.
func answerPackets(conn net.PacketConn, pod string) {
	buf := make([]byte, 1500)
	for {
		_, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = conn.WriteTo([]byte(pod+" "+from.String()), from)
	}
}
