#!/bin/sh
# Fetches a server that is published as Maven artifacts: the jars of one
# artifact, with all that it needs to run, into a directory. What is there
# already is left alone.
#
#	internal/testserver/maven.sh .cache/servers/kafka org.apache.kafka:kafka_2.13:4.4.0 ...
set -eu
dir=$1
shift
for artifact; do wanted="${wanted:-}$artifact
"; done
if [ -f "$dir/artifacts" ] && [ "$(cat "$dir/artifacts")" = "$(printf %s "$wanted")" ]; then
	exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
{
	echo '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
	echo '<groupId>cbsdmq</groupId><artifactId>server</artifactId><version>1</version><dependencies>'
	for artifact; do
		IFS=: read -r group name version <<-EOF
			$artifact
		EOF
		echo "<dependency><groupId>$group</groupId><artifactId>$name</artifactId><version>$version</version></dependency>"
	done
	echo '</dependencies></project>'
} >"$work/pom.xml"
mkdir -p "$dir"
repository=$(cd "$dir/.." && pwd)/maven
mvn -q -B -f "$work/pom.xml" -Dmaven.repo.local="$repository" \
	org.apache.maven.plugins:maven-dependency-plugin:3.6.0:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$work/jars"
rm -f "$dir"/*.jar
mv "$work/jars"/*.jar "$dir"
printf %s "$wanted" >"$dir/artifacts"
