# SPDX-License-Identifier: Apache-2.0
# For 64-bit ARM, with Debian's cross compiler (g++-aarch64-linux-gnu):
#   cmake -S test/native -B DIRECTORY -D CMAKE_TOOLCHAIN_FILE=aarch64.cmake
# The driver then runs under an emulator (qemu-user-static):
#   qemu-aarch64-static -L /usr/aarch64-linux-gnu DIRECTORY/driver
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
