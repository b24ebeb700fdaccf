# TensorRT 8.5 to 11 and the CUDA runtime: the target TensorRT::TensorRT.
#
#   TENSORRT_ROOT  where TensorRT was unpacked; not needed where the system's package manager installed it

set(_tensorrt_roots ${TENSORRT_ROOT} $ENV{TENSORRT_ROOT})
find_path(TENSORRT_INCLUDE_DIR NvInfer.h HINTS ${_tensorrt_roots} PATH_SUFFIXES include)
find_library(TENSORRT_LIBRARY nvinfer HINTS ${_tensorrt_roots} PATH_SUFFIXES lib lib64)
mark_as_advanced(TENSORRT_INCLUDE_DIR TENSORRT_LIBRARY)
find_package(CUDAToolkit QUIET)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(TensorRT REQUIRED_VARS TENSORRT_LIBRARY TENSORRT_INCLUDE_DIR CUDAToolkit_FOUND)

if(TensorRT_FOUND AND NOT TARGET TensorRT::TensorRT)
  add_library(TensorRT::TensorRT SHARED IMPORTED)
  set_target_properties(TensorRT::TensorRT PROPERTIES IMPORTED_LOCATION "${TENSORRT_LIBRARY}"
                                                      INTERFACE_INCLUDE_DIRECTORIES "${TENSORRT_INCLUDE_DIR}")
  set_property(TARGET TensorRT::TensorRT PROPERTY INTERFACE_LINK_LIBRARIES CUDA::cudart)
endif()
