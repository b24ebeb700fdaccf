# ONNX Runtime: the target OnnxRuntime::OnnxRuntime.
#
#   ONNXRUNTIME_ROOT     a folder with its headers, and its library unless the next one names it
#   ONNXRUNTIME_LIBRARY  the library; that inside a Python wheel will do: onnxruntime/capi/libonnxruntime.so.1.*
#
# Both may be environment variables.

set(_onnxruntime_roots ${ONNXRUNTIME_ROOT} $ENV{ONNXRUNTIME_ROOT})
if(NOT ONNXRUNTIME_LIBRARY AND DEFINED ENV{ONNXRUNTIME_LIBRARY})
  set(ONNXRUNTIME_LIBRARY "$ENV{ONNXRUNTIME_LIBRARY}" CACHE FILEPATH "ONNX Runtime's library" FORCE)
endif()
find_path(ONNXRUNTIME_INCLUDE_DIR onnxruntime_cxx_api.h HINTS ${_onnxruntime_roots}
          PATH_SUFFIXES include include/onnxruntime include/onnxruntime/core/session usr/include/onnxruntime
                        onnxruntime)
find_library(ONNXRUNTIME_LIBRARY onnxruntime HINTS ${_onnxruntime_roots} PATH_SUFFIXES lib usr/lib)
mark_as_advanced(ONNXRUNTIME_INCLUDE_DIR ONNXRUNTIME_LIBRARY)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(OnnxRuntime REQUIRED_VARS ONNXRUNTIME_LIBRARY ONNXRUNTIME_INCLUDE_DIR)

if(OnnxRuntime_FOUND AND NOT TARGET OnnxRuntime::OnnxRuntime)
  set(_onnxruntime_library "${ONNXRUNTIME_LIBRARY}")
  if(_onnxruntime_library MATCHES "\\.so\\.1\\.")
    # A wheel's file is not named as the loader will look for it.
    set(_onnxruntime_library "${CMAKE_BINARY_DIR}/onnxruntime/libonnxruntime.so.1")
    file(MAKE_DIRECTORY "${CMAKE_BINARY_DIR}/onnxruntime")
    file(CREATE_LINK "${ONNXRUNTIME_LIBRARY}" "${_onnxruntime_library}" SYMBOLIC)
  endif()
  add_library(OnnxRuntime::OnnxRuntime SHARED IMPORTED)
  set_target_properties(
    OnnxRuntime::OnnxRuntime PROPERTIES IMPORTED_LOCATION "${_onnxruntime_library}"
                                        INTERFACE_INCLUDE_DIRECTORIES "${ONNXRUNTIME_INCLUDE_DIR}")
endif()
