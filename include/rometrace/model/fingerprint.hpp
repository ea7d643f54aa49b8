#pragma once

#include <filesystem>
#include <span>
#include <stop_token>
#include <string>

namespace rometrace {

/// SHA-256 of a model's weight files, 64 lower-case hex digits.
/// One file: the digest of its bytes, as `sha256sum` prints it and model hubs list it. Several: the digest of the
/// text that `sha256sum` prints for them in order of name ("<digest>  <file name>\n" each), so that anyone can check
/// it with `cd FOLDER && sha256sum model-*.safetensors | sha256sum`, or pytorch_model-*.bin. The same weights in
/// another format have another digest.
/// Reads the files with a small buffer (no mapping, no memory to speak of) and looks at `stop` once a MiB.
/// Throws Error (unreadable), Interrupted.
std::string weights_sha256(std::span<const std::filesystem::path> files, std::stop_token stop = {});

/// The same, from a file in `cache_dir` where these very files have been read before: told by device, inode, size and
/// the times of their last change, of contents and of the inode. Kept there otherwise, unless a file was changed within
/// the last seconds, when a further change might not show in its times. Without a cache where `cache_dir` is empty or
/// cannot be written.
std::string cached_weights_sha256(std::span<const std::filesystem::path> files, const std::filesystem::path& cache_dir,
                                  std::stop_token stop = {});

}  // namespace rometrace
