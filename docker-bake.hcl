# Images for amd64 and arm64, with provenance and a list of their packages: `docker buildx bake -f docker-bake.hcl` writes
# them to dist/, as OCI archives. `--set "*.output=type=registry,rewrite-timestamp=true"` pushes them instead.

variable "REGISTRY" { default = "streaming-analytics" }
variable "VERSION" { default = "unreleased" }
variable "REVISION" { default = "unknown" }
# The time of everything in an image, in epoch seconds. For a release that of its commit: `git log -1 --format=%ct`.
variable "SOURCE_DATE_EPOCH" { default = "0" }

target "image" {
  name = image
  matrix = {
    image = ["data-producer", "stream-processing", "elasticsearch-sink-alert", "live-page"]
  }
  context = "."
  dockerfile = {
    data-producer            = "01-DataProducer/Dockerfile"
    stream-processing        = "02-StreamProcessing/Dockerfile"
    elasticsearch-sink-alert = "03-ElasticsearchSink-Alert/Dockerfile"
    live-page                = "live_page/Dockerfile"
  }[image]
  tags      = ["${REGISTRY}/${image}:${VERSION}"]
  platforms = ["linux/amd64", "linux/arm64"]
  args = {
    SOURCE_DATE_EPOCH = SOURCE_DATE_EPOCH
    VERSION           = VERSION
    REVISION          = REVISION
  }
  attest = ["type=provenance,mode=max", "type=sbom"]
  output = ["type=oci,dest=dist/${image}.tar,rewrite-timestamp=true"]
}

group "default" {
  targets = ["image"]
}
