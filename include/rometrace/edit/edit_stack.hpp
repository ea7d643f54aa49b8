#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "rometrace/edit/edit_file.hpp"

namespace rometrace {

/// Edit files that are applied to a model one after the other.
class EditStack {
 public:
  EditStack() = default;

  /// Reads them. Throws Error, one line: a file that is none, one that is there twice, edits of different models, one
  /// that was made on other edits than those before it. One that was made on none may also follow others that change
  /// other tensors.
  static EditStack read(std::span<const std::filesystem::path> paths);
  explicit EditStack(std::vector<EditFile> files);

  bool empty() const { return files_.empty(); }
  const std::vector<EditFile>& files() const { return files_; }

  std::vector<MatrixChange> changes() const;  ///< of all, in order: LoadOptions::changes
  std::vector<EditMark> marks() const;        ///< ModelRecord::edits
  std::vector<std::string> hashes() const;    ///< SHA-256 of the files: Edit::made_on of one that is made on them

  /// What a user should hear, a line each: edits that were not measured together.
  const std::vector<std::string>& notes() const { return notes_; }

  /// Throws Error unless the edits are of the model whose files have this digest.
  void check_weights(const std::string& weights_sha256) const;

 private:
  std::vector<EditFile> files_;
  std::vector<std::string> notes_;
};

}  // namespace rometrace
