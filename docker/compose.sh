#!/usr/bin/env bash
# The stack with whichever compose is installed: `docker compose` (v2) or `docker-compose` (1.29 and newer).
# Usage: docker/compose.sh up | down [-v] | logs [SERVICE] | psql [ARGS] | kafka-tail [N] | any compose command
set -euo pipefail
cd "$(dirname "$0")"

refuse() {
  printf '%s\n' "$1" "Without Docker, the same pipeline runs with: make demo" >&2
  exit 1
}

find_compose() {
  if docker compose version >/dev/null 2>&1; then
    compose=(docker compose)
  elif command -v docker-compose >/dev/null; then
    compose=(docker-compose)
  elif command -v docker >/dev/null; then
    refuse "docker is here, but neither 'docker compose' nor 'docker-compose' is: install the compose plug-in."
  else
    refuse "Docker is not installed (no 'docker' in PATH)."
  fi
  local problem
  problem=$(docker info --format '{{.ServerVersion}}' 2>&1 >/dev/null) ||
    refuse "Docker is installed, but its engine does not answer: ${problem##*$'\n'}"
}

# Fresh random passwords on the first run: there are no default ones to forget to change.
ensure_env() {
  [ -e .env ] && return
  (umask 077 && while IFS= read -r line; do
    case $line in
      *_PASSWORD=) printf '%s%s\n' "$line" "$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')" ;;
      *) printf '%s\n' "$line" ;;
    esac
  done <.env.example >.env.new)
  mv .env.new .env
  echo "docker/.env was missing: written from .env.example with random passwords."
}

# What docker/.env (or the shell) says, as compose reads it.
setting() {
  local value=${!1-}
  [ -n "$value" ] || value=$(sed -n "s/^$1=//p" .env | tail -n 1)
  printf '%s' "${value:-$2}"
}

# `docker ps` of this project's containers: extra arguments choose and format.
containers() {
  docker ps -a --filter "label=com.docker.compose.project=$(setting COMPOSE_PROJECT_NAME docker)" "$@"
}

# compose says which container failed, not why: the last words of the steps that had to complete.
last_words() {
  local service
  for service in topics migrate roles; do
    containers --filter "label=com.docker.compose.service=$service" --format '{{.ID}} {{.Status}}' |
      while read -r id status; do
        case $status in
          "Exited (0)"* | Up* | Created*) ;;
          *) printf '\n%s failed:\n%s\n' "$service" "$(docker logs --tail 5 "$id" 2>&1)" >&2 ;;
        esac
      done
  done
}

# Until no container is starting any more, two minutes at most. Exit 1 where one is not healthy then.
settle() {
  local states
  for _ in $(seq 120); do
    states=$(containers --format '{{.Names}}: {{.Status}}')
    [[ $states == *"health: starting"* ]] || break
    sleep 1
  done
  if [[ $states == *starting* || $states == *unhealthy* || $states == *Restarting* ]]; then
    printf 'not healthy:\n%s\n' "$(grep -E 'starting|unhealthy|Restarting' <<<"$states")" \
      "The reason is in: make logs ARGS=<service>" >&2
    return 1
  fi
}

# Kafka listens on KAFKA_PORT inside its container too, where these two are taken: it would end with a stack trace.
check_kafka_port() {
  case $(setting KAFKA_PORT 9092) in
    19092 | 29093)
      printf '%s\n' "KAFKA_PORT=$(setting KAFKA_PORT 9092) is used inside Kafka's container already: choose another, such as 9093, in docker/.env" >&2
      return 1
      ;;
  esac
}

up() {
  check_kafka_port
  "${compose[@]}" build topics # every role is the same image: build it once
  "${compose[@]}" up -d --remove-orphans "$@" || { last_words && return 1; }
  settle
  "${compose[@]}" ps
  cat <<TEXT

Grafana     http://127.0.0.1:$(setting GRAFANA_PORT 3000)  (admin; password: GRAFANA_ADMIN_PASSWORD in docker/.env)
Prometheus  http://127.0.0.1:$(setting PROMETHEUS_PORT 9090)
exporter    http://127.0.0.1:$(setting MOCK_PORT 9400)/metrics
rows        make psql ARGS='-c "SELECT count(*) FROM gpu_metrics"'
events      make kafka-tail
TEXT
}

kafka_tail() {
  local pretty=(cat)
  if command -v jq >/dev/null; then pretty=(jq .); fi
  "${compose[@]}" exec -T kafka /opt/kafka/bin/kafka-console-consumer.sh --bootstrap-server "localhost:$(setting KAFKA_PORT 9092)" \
    --topic "$(setting KAFKA_TOPIC gpu-metrics-raw)" --from-beginning --max-messages "${1:-1}" --timeout-ms 60000 | "${pretty[@]}"
}

no_tty=()
if ! [ -t 0 ] || ! [ -t 1 ]; then no_tty=(-T); fi
find_compose
ensure_env
case ${1:-} in
  up) shift && up "$@" ;;
  logs) shift && "${compose[@]}" logs -f --tail=100 "$@" ;;
  psql) shift && "${compose[@]}" exec "${no_tty[@]}" timescaledb psql -U gpu_monitor -d gpu_health "$@" ;;
  kafka-tail) shift && kafka_tail "$@" ;;
  "") sed -n '2,3s/^# //p' compose.sh && exit 2 ;;
  # Profiles that are not active now may have been when the stack was started.
  down) shift && COMPOSE_PROFILES=mock,gpu "${compose[@]}" down --remove-orphans "$@" ;;
  *) "${compose[@]}" "$@" ;;
esac
