# syntax=docker/dockerfile:1
FROM docker.io/library/golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=devel
ARG COMMIT=
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false \
    -ldflags "-s -w -X example.com/unrestrict-worker/internal/service.version=${VERSION} -X example.com/unrestrict-worker/internal/service.commit=${COMMIT}" -o /worker ./cmd/worker
# An empty folder of the image's user: what is mounted over it takes its owner
RUN mkdir /data

FROM gcr.io/distroless/static-debian12:nonroot
ARG VERSION=devel
ARG COMMIT=
LABEL org.opencontainers.image.title="unrestrict-worker" \
      org.opencontainers.image.description="Lifts app execution restrictions with Microsoft Defender, on requests from NATS JetStream" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}"
COPY --from=build /worker /usr/local/bin/worker
COPY --from=build --chown=65532:65532 /data /var/lib/worker
ENV WORKER_DATA_DIR=/var/lib/worker
HEALTHCHECK --interval=15s --timeout=6s --start-period=30s CMD ["/usr/local/bin/worker", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/worker"]
CMD ["run"]
