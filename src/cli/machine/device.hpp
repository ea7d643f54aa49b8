#pragma once

#include <c10/core/Device.h>

#include <string>
#include <vector>

#include "rometrace/facts/shard.hpp"

namespace rometrace::cli {

/// What `--device` names, and what a user should know of how that was chosen.
struct DeviceChoice {
  std::vector<c10::Device> devices;  ///< one, but for cuda:all
  std::string note;                  ///< one line, or empty
  bool warns = false;                ///< whether the note is a warning
};

/// The GPU that `--device cuda` is for one of the processes of a machine, of `visible` GPUs (at least 1): those that
/// CUDA_VISIBLE_DEVICES leaves, which libtorch numbers from 0.
///  - No launcher started the process: the first.
///  - One is visible: that one. Launchers often give each process its own.
///  - Else local rank r (local_rank_from_environment()) takes number r. Ranks beyond the last begin again with the
///  first,
///    which is right where each process sees GPUs of its own; the note warns, as else ranks share a GPU.
/// Throws Error as local_rank_from_environment() does.
DeviceChoice choose_gpu(const Environment& environment, int visible);

/// All `visible` GPUs, for cuda:all. The note warns where other processes of the machine may do so as well.
DeviceChoice choose_all_gpus(const Environment& environment, int visible);

/// "cpu", "cuda", "cuda:<i>" or "cuda:all". Throws Error, with what libtorch said if a GPU was asked for and cannot be
/// used.
DeviceChoice parse_devices(const std::string& text);

/// The same where one device works: Throws Error also for "cuda:all".
DeviceChoice parse_device(const std::string& text);

}  // namespace rometrace::cli
