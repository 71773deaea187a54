// @tus/server with @tus/s3-store, as their documentation shows it, for `bench.peers.tus_node`.
// Settings come from the environment; one line {"port": N} on stdout when it is ready. One process per worker.
import cluster from 'node:cluster'
import http from 'node:http'
import {S3Store} from '@tus/s3-store'
import {Server} from '@tus/server'

const {CLIPKEEP_BENCH_S3_ENDPOINT, BENCH_BUCKET, BENCH_PORT, BENCH_WORKERS} = process.env

function serve() {
  const datastore = new S3Store({
    partSize: 8 * 1024 * 1024,
    s3ClientConfig: {
      bucket: BENCH_BUCKET,
      region: 'us-east-1',
      endpoint: CLIPKEEP_BENCH_S3_ENDPOINT,
      forcePathStyle: true,
    },
  })
  const tus = new Server({path: '/files', datastore, relativeLocation: true})
  const server = http.createServer((request, response) =>
    request.url === '/readyz' ? response.end() : tus.handle(request, response),
  )
  server.listen({host: '127.0.0.1', port: Number(BENCH_PORT), backlog: 2048})
}

if (cluster.isPrimary && Number(BENCH_WORKERS) > 1) {
  for (let worker = 0; worker < Number(BENCH_WORKERS); worker += 1) cluster.fork()
} else {
  serve()
}
