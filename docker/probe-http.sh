#!/bin/bash
# probe-http PORT PATH: exit 0 if http://127.0.0.1:PORT/PATH answers 200; prints the answer's body (why it is not ready).
# bash alone: a Python start for every probe of every service costs a fifth of a second of a core, this costs 5 ms.
exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$2" >&3
read -r -t 4 _ status _ <&3 || exit 1
# Headers end at the empty line; the body is short and goes to `docker inspect`.
while read -r -t 1 line <&3 && [ "$line" != $'\r' ]; do :; done
read -r -t 1 -n 300 body <&3
printf '%s %s\n' "$status" "$body"
[ "$status" = 200 ]
