#!/usr/bin/env bash
# Builds a release into one folder: image, packaged chart, SBOM, checksums. With the argument `publish`, pushes image and
# chart as well. See README.md.
set -euo pipefail
cd "$(dirname "$0")/../.."

# Where image and chart are published; the chart's image name follows it.
REGISTRY=${REGISTRY:-registry.example.com/kitepush}
# One or both; a prebuilt binary makes an image for this machine alone.
PLATFORMS=${PLATFORMS:-linux/amd64,linux/arm64}
# Path of a binary that is there already; compiled in the image's own build when empty.
PREBUILT=${PREBUILT:-}
# Anything that builds as docker and buildah do, with its global options; further options for its build.
BUILDER=${BUILDER:-$(command -v docker >/dev/null && docker info >/dev/null 2>&1 && echo docker || echo buildah)}
BUILD_OPTIONS=${BUILD_OPTIONS:-}

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
out=${OUT:-target/dist/$version}
image=$REGISTRY/kitepush:$version
rm -rf "$out"
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "image $image"
context=.
options=(--build-arg "VERSION=$version" --build-arg "REVISION=$revision" -f deploy/docker/Dockerfile)
if [ -n "$PREBUILT" ]; then
    context=$work/context
    mkdir -p "$context/deploy/docker"
    cp -r deploy/docker/state "$context/deploy/docker/state"
    objcopy --strip-all "$PREBUILT" "$context/kitepush"
    options+=(--build-arg BINARY=prebuilt --build-arg PREBUILT=kitepush)
    PLATFORMS=
fi
# shellcheck disable=SC2086
case $BUILDER in
docker*)
    $BUILDER buildx build ${PLATFORMS:+--platform $PLATFORMS} "${options[@]}" $BUILD_OPTIONS -t "$image" \
        --output "type=oci,dest=$out/kitepush-$version-image.tar" "$context"
    ;;
*)
    $BUILDER manifest rm "$image" >/dev/null 2>&1 || true
    $BUILDER bud ${PLATFORMS:+--platform $PLATFORMS} --manifest "$image" "${options[@]}" $BUILD_OPTIONS "$context"
    $BUILDER manifest push --all "$image" "oci-archive:$out/kitepush-$version-image.tar"
    ;;
esac

echo "chart"
cp -rL deploy/helm/kitepush "$work/kitepush"
sed -i "s|^  repository: kitepush$|  repository: $REGISTRY/kitepush|" "$work/kitepush/values.yaml"
helm package "$work/kitepush" --version "$version" --app-version "$version" --destination "$out"

echo "sbom"
python3 deploy/release/sbom.py >"$out/kitepush-$version.cdx.json"

(cd "$out" && sha256sum -- * >SHA256SUMS)

if [ "${1:-}" = publish ]; then
    skopeo copy --all "oci-archive:$out/kitepush-$version-image.tar" "docker://$image"
    helm push "$out/kitepush-$version.tgz" "oci://$REGISTRY/charts"
fi
echo "release $version is in $out"
