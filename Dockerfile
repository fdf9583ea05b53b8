# Built by `cargo xtask image`, which puts the programs, their libraries and the
# loader into the build context at the places where they belong.
FROM scratch
COPY . /
USER 65532:65532
EXPOSE 46357
# Without --admin, as in a command of one's own, there is nobody to ask: give another check
# then, or none.
HEALTHCHECK --interval=5s --timeout=5s CMD ["/usr/bin/slim-node", "--health", "127.0.0.1:46358"]
CMD ["/usr/bin/slim-node", "--listen", "0.0.0.0:46357", "--admin", "127.0.0.1:46358"]
