package main

import (
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/cbsd/cbsdmq/internal/freebsdpkg"
)

const install = `cbsdmq is installed. To serve a pool of CBSD:

  cbsdmq init pool1 /pool1        # or, for an environment that there is:
                                  # cbsdmq check --example > /usr/local/etc/cbsdmq/pool1.json
  cbsdmq check
  sysrc cbsdmq_runner_enable=YES cbsdmq_enable=YES
  service cbsdmq_runner start
  service cbsdmq start

/usr/local/share/doc/cbsdmq has the manual, /usr/local/share/examples/cbsdmq
configurations and jobs.`

const upgrade = `The agents go on with the program that they were started with:

  service cbsdmq restart

renews them; commands and guests go on meanwhile. The runner can stay.`

const remove = `What cbsdmq has written stays: the journals in var/db/cbsdmq of the pools, the
files in /usr/local/etc/cbsdmq, /var/db/cbsdmq and /var/log/cbsdmq. Commands and
guests that run go on.`

// of fills in what a package is besides its files.
func of(p freebsdpkg.Package) freebsdpkg.Package {
	p.Name, p.Origin, p.Prefix = "cbsdmq", "sysutils/cbsdmq", prefix
	p.Comment = "Run CBSD commands over a message broker, and lose none"
	p.Desc = `cbsdmq is a broker-driven control plane for hosts that run CBSD: it runs cbsd
commands over beanstalkd, NATS, RabbitMQ, Kafka, ActiveMQ or ZeroMQ and loses
none. It takes the place of bs_router, cbsd-mq-router and bs_router-client.`
	p.WWW, p.Maintainer = "https://github.com/cbsd/cbsdmq", "ports@FreeBSD.org"
	p.Categories, p.License = []string{"sysutils"}, "BSD2CLAUSE"
	p.Messages = map[string]string{"install": install, "upgrade": upgrade, "remove": remove}
	var post, pre strings.Builder
	for _, sample := range slices.Sorted(maps.Keys(samples)) {
		file := path.Join(prefix, sample)
		target := strings.TrimSuffix(file, ".sample")
		post.WriteString(strings.NewReplacer("SAMPLE", file, "TARGET", target).Replace(
			`[ -f "${PKG_ROOTDIR}TARGET" ] || cp -p "${PKG_ROOTDIR}SAMPLE" "${PKG_ROOTDIR}TARGET"
`))
		pre.WriteString(strings.NewReplacer("SAMPLE", file, "TARGET", target).Replace(
			`if cmp -s "${PKG_ROOTDIR}SAMPLE" "${PKG_ROOTDIR}TARGET"; then
	rm -f "${PKG_ROOTDIR}TARGET"
elif [ -f "${PKG_ROOTDIR}TARGET" ]; then
	echo "TARGET was changed: it stays"
fi
`))
	}
	p.Scripts = map[string]string{"post-install": post.String(), "pre-deinstall": pre.String()}
	for _, dir := range directories {
		p.Directories = append(p.Directories, path.Join(prefix, dir))
	}
	return p
}
