# syntax=docker/dockerfile:1
# The image of a gateway: about 25 MB of program on distroless, without a shell, not as root, and it writes no file.
#
#   docker build --tag roomcast:0.1.0 .
#   docker run --read-only --cap-drop ALL -v ./roomcast.toml:/etc/roomcast/config/roomcast.toml:ro -p 8080:8080 roomcast:0.1.0
#
# glibc and not musl: its malloc gives memory back after a wave of clients (docs/decisions/0003-memory-is-given-back-by-malloc-trim.md).

ARG RUST_VERSION=1.95.0
ARG DEBIAN=bookworm

FROM rust:${RUST_VERSION}-${DEBIAN} AS build
ARG RUST_VERSION
# rust-toolchain.toml asks for formatter and linter, which a build does not need.
ENV RUSTUP_TOOLCHAIN=${RUST_VERSION} CARGO_TERM_COLOR=never
WORKDIR /src
COPY . .
# Sources of crates and what was compiled before are kept for the next build; the image gets the program alone.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --profile dist --bin roomcast && \
    strip --strip-all --output-file /roomcast target/dist/roomcast

FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="roomcast" \
      org.opencontainers.image.description="A gRPC-fronted realtime gateway" \
      org.opencontainers.image.source="https://github.com/roomcast/roomcast" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /roomcast /usr/bin/roomcast
USER 65532:65532
# Clients, backends, admin.
EXPOSE 8080 50051 9464
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/roomcast"]
CMD ["serve", "--config", "/etc/roomcast/config/roomcast.toml"]
