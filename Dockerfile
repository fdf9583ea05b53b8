# Built by `cargo xtask image`, which puts the programs, their libraries and the
# loader into the build context at the places where they belong.
FROM scratch
COPY . /
USER 65532:65532
EXPOSE 46357
CMD ["/usr/bin/slim-node", "--listen", "0.0.0.0:46357"]
