#!/usr/bin/env bash
# Builds FHI-aims from its source folder with initial_cache.cmake (start from example_initial_cache.cmake).
#
#   cd /path/to/FHIaims && cp …/example_initial_cache.cmake initial_cache.cmake
#   bash …/compile_fhi_aims.sh [number of cores]
#
# Load compilers, MPI and MKL first, and load the same modules in CLUSTER.worker_str of aimsPAX.yaml.
set -euo pipefail

[ -f initial_cache.cmake ] || { echo "no initial_cache.cmake here: $(pwd)" >&2; exit 1; }
[ -d species_defaults ] || { echo "this is not the source folder of FHI-aims: $(pwd)" >&2; exit 1; }

cmake -S . -B build -C initial_cache.cmake
cmake --build build --parallel "${1:-8}"

binary=$(find build -maxdepth 1 -type f -name 'aims*.x' | head -n 1)
[ -n "$binary" ] || { echo "the build left no aims*.x in build/" >&2; exit 1; }
echo "launch_str:  srun --ntasks=… $(realpath "$binary") >> aims.out"
echo "species_dir: $(realpath species_defaults)/defaults_2020/light"
