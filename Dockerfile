# The image is the binary and nothing else: no shell, no package manager, no files to patch.
# `make image` builds the same without Docker.

FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
ARG COMMIT=
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false \
    -ldflags "-s -w -X main.version=${VERSION} -X main.commit=${COMMIT}" -o /portico ./cmd/portico

FROM scratch
COPY --from=build /portico /portico
# A number, so that Kubernetes can tell that it is not root.
USER 65532:65532
# http, https, admin
EXPOSE 8080 8443 10254
ENTRYPOINT ["/portico"]
CMD ["serve"]
