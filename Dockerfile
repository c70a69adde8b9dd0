# The images for people with Docker; `cargo xtask images` makes the same without.
#   docker build --target operator --tag registry.example.com/shoal/shoal-operator:0.1.0 .
#   docker build --target agent --tag registry.example.com/shoal/shoal-agent:0.1.0 .
FROM rust:1.95.0-bookworm AS build
WORKDIR /shoal
COPY . .
# With a target named the flags hold for the programs alone.
RUN target="$(rustc -vV | sed -n 's/^host: //p')" \
 && RUSTFLAGS="-C target-feature=+crt-static -C strip=symbols" \
    cargo build --release --locked --target "$target" --bins -p shoal-agent -p shoal-operator \
 && mkdir -p /out/etc && echo "hosts: files dns" > /out/etc/nsswitch.conf \
 && cp "target/$target/release/shoal-agent" "target/$target/release/shoal-operator" /out/

FROM scratch AS base
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/etc/nsswitch.conf /etc/nsswitch.conf
LABEL org.opencontainers.image.licenses=Apache-2.0

FROM base AS operator
COPY --from=build /out/shoal-operator /shoal-operator
USER 65532:65532
ENTRYPOINT ["/shoal-operator"]

FROM base AS agent
COPY --from=build /out/shoal-agent /shoal-agent
ENTRYPOINT ["/shoal-agent"]
