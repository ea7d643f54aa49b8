#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "rometrace/edit/second_moment.hpp"

namespace rometrace {

/// Writes second moments of one model and text as safetensors, of schema "rometrace/moments-file/1" (docs/formats.md):
/// of each layer the upper triangle, row by row, float64, and its SHA-256; the rest as JSON under the metadata key
/// "rometrace".
class MomentFileWriter {
 public:
  /// Writes the head; `write` gets the bytes of the file piece by piece. `facts` is what the moments have in common:
  /// all but layer and mean.
  MomentFileWriter(const SecondMoment& facts, std::span<const std::int64_t> layers, std::int64_t width,
                   std::function<void(std::string_view)> write);

  /// To be called for each of the layers, in their order.
  void add(const SecondMoment& moment);

 private:
  std::function<void(std::string_view)> write_;
};

/// A file of one moment, written under another name and renamed. Throws Error.
void write_moment_file(const std::filesystem::path& path, const SecondMoment& moment);

/// A file of second moments: one of MomentFileWriter, or the reference's npz (kmeng01/rome: mom2.mom2, the sum of k
/// k^T, and mom2.count; stored or deflated). One is read at a time.
class MomentFile {
 public:
  /// Reads what the file has, not the moments. Throws Error: no such file, another format, cut short, another schema.
  static MomentFile open(const std::filesystem::path& path);
  ~MomentFile();
  MomentFile(MomentFile&&) noexcept;
  MomentFile& operator=(MomentFile&&) noexcept;

  /// Ascending. Of an npz one: the layer that its name tells ("transformer.h.17.mlp.c_proj_..."), else -1.
  const std::vector<std::int64_t>& layers() const;
  /// What the moments have in common: all but layer and mean.
  const SecondMoment& facts() const;

  /// The moment of a layer; an npz that does not tell its layer is of whichever is asked for. Throws Error: a layer
  /// that the file does not have, damaged (its checksum differs), numbers that are not finite, no second moment (a
  /// negative diagonal, not symmetric).
  SecondMoment read(std::int64_t layer) const;

 private:
  struct Impl;
  explicit MomentFile(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

/// One layer's moment of such a file. Throws Error as MomentFile does.
SecondMoment read_second_moment(const std::filesystem::path& path, std::int64_t layer);

}  // namespace rometrace
