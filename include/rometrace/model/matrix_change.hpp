#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "rometrace/model/checkpoint.hpp"
#include "rometrace/model/config.hpp"

namespace rometrace {

/// A change of rank n of the matrix that leads out of a layer's MLP, W [out, in]: what is added is r^T u. It is kept
/// beside the files, which stay as they are.
struct MatrixChange {
  std::string tensor;                       ///< by the checkpoint's name, such as "transformer.h.17.mlp.c_proj.weight"
  std::int64_t layer = 0;                   ///< from 0
  at::Tensor u, r;                          ///< [n, in] and [n, out], float32, contiguous, on the CPU
  std::string sha256_before, sha256_after;  ///< of the matrix, as Checkpoint::sha256() has it
  std::string source;                       ///< the file that the change is from, for messages; may be empty
};

/// The matrix that leads out of a layer's MLP, [F -> D].
struct MatrixPlace {
  std::string tensor;
  std::int64_t in = 0, out = 0;
  bool transposed = true;  ///< in the file it is [out, in]; GPT-2's are [in, out]

  std::vector<std::int64_t> shape() const {  ///< in the file
    return transposed ? std::vector{out, in} : std::vector{in, out};
  }
};

/// That of a layer, 0 <= layer < L, by the names that the checkpoint has.
MatrixPlace mlp_output_matrix(const DecoderConfig& config, const Checkpoint& checkpoint, std::int64_t layer);

/// The checkpoint with changes over it, one after the other. Reads each changed matrix once, and compares its hashes.
/// Throws Error, one line that opens with the change's source: a tensor that is not the matrix that leads out of that
/// layer's MLP, u or r of another shape, values that are not those that the change was made for (sha256_before), or
/// that it does not lead to (sha256_after).
Checkpoint changed(Checkpoint checkpoint, const DecoderConfig& config, std::span<const MatrixChange> changes);

/// What a change does to a matrix, once its elements have been rounded to the file's dtype.
struct ChangedMatrix {
  std::string sha256_before, sha256_after;
  double change_norm = 0, original_norm = 0;  ///< Frobenius norms: of W' - W, and of W
};

/// Of a change that is being made, whose hashes are not looked at, over what lies over the checkpoint already. Throws
/// Error: another shape, elements that the file's dtype cannot hold.
ChangedMatrix apply_change(const Checkpoint& checkpoint, const MatrixChange& change, const MatrixPlace& place);

}  // namespace rometrace
