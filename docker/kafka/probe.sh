#!/bin/bash
# probe.sh HOST PORT: exit 0 if a Kafka broker answers an ApiVersions request there.
# Kafka's own tools start a JVM for each call (half a second of a core and 100 MB every few seconds); this asks the
# same question in bash. An open port alone would not do: a broker that hangs still accepts connections.
exec 3<>"/dev/tcp/$1/$2" || exit 1
# Frame of 10 bytes: api key 18 (ApiVersions), version 0, correlation id 1, no client id.
printf '\0\0\0\012\0\022\0\0\0\0\0\001\377\377' >&3
# Answer: 4 bytes length, 4 bytes correlation id, 2 bytes error code.
answer=$(timeout 4 head -c 10 <&3 | od -An -v -tu1 | tr -s ' \n' '  ')
[[ $answer == *" 0 0 0 1 0 0 " || $answer == *" 0 0 0 1 0 0" ]]
