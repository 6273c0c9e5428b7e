// Stands in for the Windows library of this name, which Wine 8 does not have. Rust's standard library calls one
// function of it, for random bytes; RtlGenRandom, exported as SystemFunction036, gives the same.
#include <windows.h>

BOOLEAN NTAPI SystemFunction036(PVOID buffer, ULONG length);

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE buffer, SIZE_T length) {
    return SystemFunction036(buffer, (ULONG)length) ? TRUE : FALSE;
}
