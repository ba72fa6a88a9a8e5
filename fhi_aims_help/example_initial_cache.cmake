# A starting point for building FHI-aims: copy it into the FHI-aims source folder as initial_cache.cmake, change what
# your machine has, then run compile_fhi_aims.sh there. FHI-aims itself needs a licence: https://fhi-aims.org
#
# This one is for Intel's compilers with MKL and Intel MPI, on any recent Intel or AMD processor.

# --- compilers: the MPI wrapper for Fortran, plain ones for C and C++
set(CMAKE_Fortran_COMPILER "mpiifx" CACHE STRING "")      # older toolchains: mpiifort; GNU: mpif90
set(CMAKE_C_COMPILER       "icx"    CACHE STRING "")      # GNU: gcc
set(CMAKE_CXX_COMPILER     "icpx"   CACHE STRING "")      # GNU: g++

# --- optimisation. -fp-model precise keeps sums in order: forces are then reproducible from run to run, which
#     a force field needs more than the last two per cent of speed.
set(CMAKE_Fortran_FLAGS "-O3 -fp-model precise"  CACHE STRING "")   # GNU: -O3 -ffree-line-length-none
set(Fortran_MIN_FLAGS   "-O0 -fp-model precise"      CACHE STRING "")   # for the few files that must not be optimised
set(CMAKE_C_FLAGS       "-O3 -fp-model precise"  CACHE STRING "")
set(CMAKE_CXX_FLAGS     "-O3 -fp-model precise"  CACHE STRING "")

# --- linear algebra: MKL's BLAS, LAPACK and ScaLAPACK, sequential (aims-PAX runs FHI-aims with MPI ranks, not threads)
set(LIB_PATHS "$ENV{MKLROOT}/lib/intel64"                                                      CACHE STRING "")
set(LIBS      "mkl_scalapack_lp64 mkl_blacs_intelmpi_lp64 mkl_intel_lp64 mkl_sequential mkl_core"  CACHE STRING "")
#   GNU with OpenBLAS:  set(LIBS "scalapack openblas" CACHE STRING "")

# --- parts of FHI-aims
set(USE_MPI       ON  CACHE BOOL "")
set(USE_SCALAPACK ON  CACHE BOOL "")
set(USE_SPGLIB    ON  CACHE BOOL "")    # symmetry of crystals
set(USE_LIBXC     ON  CACHE BOOL "")    # more functionals
set(USE_HDF5      OFF CACHE BOOL "")
set(USE_IPI       OFF CACHE BOOL "")    # sockets: not needed, aims-PAX starts one process for each label
set(ELPA2_KERNEL  "AVX512" CACHE STRING "")   # AVX2 for processors without AVX-512
