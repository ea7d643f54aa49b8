#pragma once

#include <cstddef>
#include <filesystem>
#include <stop_token>
#include <string>
#include <vector>

#include "rometrace/edit/edit_stack.hpp"

namespace rometrace {

/// What became of the files of a model whose edited weights were written.
struct WrittenModel {
  std::vector<std::string> written;   ///< names of weight files that hold edited matrices
  std::vector<std::string> linked;    ///< of other weight files: the model's own, by a second name
  std::vector<std::string> copied;    ///< of all else, and of weight files on another file system
  std::vector<std::string> left_out;  ///< of weights in formats that were not read, and so are not edited
};

/// Writes the model of the folder `model`, with the edits, as a folder `target` that any program loads: config and
/// tokeniser as they are, bit for bit; of safetensors only the files that hold an edited matrix anew, in which nothing
/// but the matrix differs; PyTorch files as one model.safetensors with all of their tensors. Its weights are those that
/// Decoder::load gives with the edits, bit for bit. Folders inside are copied too, but for hidden ones.
///
/// It is made under another name beside `target`, which it takes in one step when all of it is on the disk: nobody sees
/// a part of it. What does not succeed is removed; a process that is killed leaves a folder `.rometrace-...`. Checks
/// the edits, with the digest of all weights, before anything is written. Throws Error: no edits, edits of another
/// model, `target` there and not an empty folder, inside the model's folder or in none, no space; Interrupted.
WrittenModel write_edited_model(const std::filesystem::path& model, const EditStack& edits,
                                const std::filesystem::path& target, const std::stop_token& stop = {});

}  // namespace rometrace
