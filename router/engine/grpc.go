package engine

// IsGRPC reports the Content-Type of gRPC. That of gRPC-Web is another.
func IsGRPC(contentType []byte) bool {
	const name = "application/grpc"
	n := len(name)
	return len(contentType) >= n && equalFold(contentType[:n], name) &&
		(len(contentType) == n || contentType[n] == '+' || contentType[n] == ';')
}
