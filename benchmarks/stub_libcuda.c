/* A CUDA driver that does nothing and says that it succeeded: just what Triton asks of libcuda before and at a launch.
   See stub_driver.py. Built at run time with the compiler that Triton needs anyway. */
#include <stdint.h>
#include <string.h>

#define SUCCEEDS(name) \
    int name() { return 0; }

/* CUdevice_attribute numbers of what is asked, and an H100's answers. */
static int attribute_of_h100(int attribute) {
    switch (attribute) {
        case 8: return 49152;    /* shared memory per block */
        case 10: return 32;      /* warp size */
        case 12: return 65536;   /* registers per block */
        case 13: return 1755000; /* clock, kHz */
        case 16: return 132;     /* multiprocessors */
        case 36: return 2600000; /* memory clock, kHz */
        case 37: return 5120;    /* memory bus width */
        case 75: return 9;       /* compute capability, major */
        case 76: return 0;       /* minor */
        case 81: return 233472;  /* shared memory per multiprocessor */
        case 97: return 232448;  /* shared memory per block, opt-in */
        default: return 1;
    }
}

/* A descriptor says what was asked for: address, rank, five sizes, four strides in bytes, five of a block. */
typedef uint64_t tensor_map[16];

long launches = 0;
/* The descriptors of the last launch, those of its parameters that are asked for. */
int asked_for = 0;
int asked[8];
tensor_map launched[8];

int cuTensorMapEncodeTiled(tensor_map map, int type, uint32_t rank, void *address, const uint64_t *sizes,
                           const uint64_t *strides, const uint32_t *block) {
    memset(map, 0, sizeof(tensor_map));
    map[0] = (uint64_t)address;
    map[1] = rank;
    for (uint32_t i = 0; i < rank; i++) {
        map[2 + i] = sizes[i];
        if (i + 1 < rank) map[7 + i] = strides[i];
        map[11 + i] = block[i];
    }
    return 0;
}

int cuLaunchKernelEx(const void *config, void *function, void **parameters) {
    launches++;
    for (int i = 0; i < asked_for; i++) memcpy(launched[i], parameters[asked[i]], sizeof(tensor_map));
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute_of_h100(attribute); return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 0; return 0; }
int cuCtxGetCurrent(void **context) { *context = (void *)1; return 0; }
int cuCtxGetDevice(int *device) { *device = 0; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)1; return 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuFuncGetAttribute(int *value, int attribute, void *function) { *value = attribute == 0 ? 1024 : 0; return 0; }
int cuGetErrorString(int error, const char **text) { *text = "the stub driver"; return 0; }
int cuModuleLoadData(void **module, const void *image) { *module = (void *)2; return 0; }
int cuModuleGetFunction(void **function, void *module, const char *name) { *function = (void *)3; return 0; }
int cuOccupancyMaxActiveClusters(int *number, void *function, void *config) { *number = 1; return 0; }
int cuPointerGetAttribute(void *data, int attribute, uint64_t pointer) { *(uint64_t *)data = pointer; return 0; }
int cuStreamIsCapturing(void *stream, int *status) { *status = 0; return 0; }
int cuInit(unsigned flags) { return 0; }

SUCCEEDS(cuCtxGetLimit)
SUCCEEDS(cuCtxSetCurrent)
SUCCEEDS(cuCtxSetLimit)
SUCCEEDS(cuFuncSetAttribute)
SUCCEEDS(cuFuncSetCacheConfig)
SUCCEEDS(cuGetProcAddress_v2)
SUCCEEDS(cuModuleUnload)
SUCCEEDS(cuPointerGetAttributes)
SUCCEEDS(cuTensorMapEncodeIm2col)
