# For make of BSD and of GNU. The same sources give the same bytes.
#
#   make            the program
#   make pkg        packages for FreeBSD: build/FreeBSD-14-amd64/cbsdmq-VERSION.pkg, ...
#   make release    tar files and packages, and SHA256 of each
#   make install    PREFIX is /usr/local, DESTDIR may be set

VERSION?=	0.1.0
GO?=		go
# When the sources were changed last, as seconds since 1970.
SOURCE_DATE_EPOCH!=	git log -1 --format=%ct 2>/dev/null || echo 0

BUILD=		CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X main.release=$(VERSION)"
MKPKG=		SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) $(GO) run ./dist/mkpkg
GENERATED=	build/generated/stamp

all: build/cbsdmq

build/cbsdmq: FORCE
	$(BUILD) -o $@ ./cmd/cbsdmq

build/freebsd-amd64/cbsdmq build/freebsd-arm64/cbsdmq build/linux-amd64/cbsdmq build/linux-arm64/cbsdmq: FORCE
	system=$$(basename $$(dirname $@)); GOOS=$${system%-*} GOARCH=$${system#*-} $(BUILD) -o $@ ./cmd/cbsdmq

$(GENERATED): build/cbsdmq
	mkdir -p build/generated
	rm -rf build/generated/man
	build/cbsdmq man --date "$$(date -u -d @$(SOURCE_DATE_EPOCH) +%F 2>/dev/null || date -u -r $(SOURCE_DATE_EPOCH) +%F)" build/generated/man
	for shell in bash zsh fish; do build/cbsdmq completion $$shell > build/generated/completion.$$shell || exit 1; done
	touch $@

pkg: build/freebsd-amd64/cbsdmq build/freebsd-arm64/cbsdmq $(GENERATED)
	for release in 14 15; do \
		$(MKPKG) pkg -abi FreeBSD:$$release:amd64 -version $(VERSION) -program build/freebsd-amd64/cbsdmq -o build/FreeBSD-$$release-amd64/cbsdmq-$(VERSION).pkg || exit 1; \
		$(MKPKG) pkg -abi FreeBSD:$$release:aarch64 -version $(VERSION) -program build/freebsd-arm64/cbsdmq -o build/FreeBSD-$$release-arm64/cbsdmq-$(VERSION).pkg || exit 1; \
	done

release: pkg build/linux-amd64/cbsdmq build/linux-arm64/cbsdmq
	for system in freebsd-amd64 freebsd-arm64 linux-amd64 linux-arm64; do \
		$(MKPKG) tar -version $(VERSION)-$$system -program build/$$system/cbsdmq -o build/cbsdmq-$(VERSION)-$$system.tar.gz || exit 1; \
	done
	cd build && { sha256sum *.tar.gz */*.pkg 2>/dev/null || sha256 -r *.tar.gz */*.pkg; } > SHA256

install: build/cbsdmq $(GENERATED)
	$(MKPKG) stage -program build/cbsdmq -o $(DESTDIR)/

clean:
	rm -rf build

FORCE:

.PHONY: all pkg release install clean FORCE
