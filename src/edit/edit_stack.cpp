#include "rometrace/edit/edit_stack.hpp"

#include <algorithm>
#include <map>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace {
namespace {

/// "on the original weights", "on one edit", "on 3 edits".
std::string base_text(std::size_t edits) {
  if (edits == 0) return "on the original weights";
  return edits == 1 ? "on one edit" : "on " + std::to_string(edits) + " edits";
}

[[noreturn]] void refuse_place(const EditFile& file, std::span<const std::string> before) {
  const auto& base = file.edit.made_on;
  std::string missing;
  for (const auto& hash : base) {
    if (missing.empty() && std::find(before.begin(), before.end(), hash) == before.end()) missing = hash;
  }
  throw Error(file.label + ": was made " + base_text(base.size()) +
              (missing.empty() ? "" : ", of which the file with SHA-256 " + missing + " is not given before it") +
              (missing.empty() && base.size() < before.size()
                   ? ", and comes after " + std::to_string(before.size()) + " here"
                   : "") +
              "; expected --edit with exactly these before it, in their order");
}

}  // namespace

EditStack EditStack::read(std::span<const std::filesystem::path> paths) {
  std::vector<EditFile> files;
  for (const auto& path : paths) files.push_back(read_edit_file(path));
  return EditStack(std::move(files));
}

EditStack::EditStack(std::vector<EditFile> files) : files_(std::move(files)) {
  std::vector<std::string> before;
  std::map<std::string, const EditFile*> changed_by;  // tensors
  for (const auto& file : files_) {
    const auto& first = files_.front();
    if (const auto same = std::find(before.begin(), before.end(), file.sha256); same != before.end()) {
      throw Error(file.label + ": is the same edit as " +
                  files_[static_cast<std::size_t>(same - before.begin())].label + "; expected each once");
    }
    if (file.edit.model.weights_sha256 != first.edit.model.weights_sha256) {
      throw Error(file.label + ": was made for the weights " + file.edit.model.weights_sha256 + ", " + first.label +
                  " for " + first.edit.model.weights_sha256 + "; expected edits of one model");
    }
    if (file.edit.made_on != before) {
      if (!file.edit.made_on.empty()) refuse_place(file, before);
      for (const auto& matrix : file.edit.matrices) {
        const auto other = changed_by.find(matrix.change.tensor);
        if (other == changed_by.end()) continue;
        throw Error(file.label + ": was made on the original weights and changes tensor " +
                    in_quotes(matrix.change.tensor) + ", as " + other->second->label +
                    " does; expected an edit that was made on that one (rometrace edit --edit " + other->second->label +
                    " ...)");
      }
      notes_.push_back(
          file.label + " was made on the original weights, without " +
          (before.size() == 1 ? first.label : "the " + std::to_string(before.size()) + " edits before it") +
          ": the edits were not measured together");
    }
    for (const auto& matrix : file.edit.matrices) changed_by.emplace(matrix.change.tensor, &file);
    before.push_back(file.sha256);
  }
}

std::vector<MatrixChange> EditStack::changes() const {
  std::vector<MatrixChange> changes;
  for (const auto& file : files_) {
    for (const auto& matrix : file.edit.matrices) changes.push_back(matrix.change);
  }
  return changes;
}

std::vector<EditMark> EditStack::marks() const {
  std::vector<EditMark> marks;
  for (const auto& file : files_) marks.push_back(file.mark());
  return marks;
}

std::vector<std::string> EditStack::hashes() const {
  std::vector<std::string> hashes;
  for (const auto& file : files_) hashes.push_back(file.sha256);
  return hashes;
}

void EditStack::check_weights(const std::string& weights_sha256) const {
  for (const auto& file : files_) {
    const auto& expected = file.edit.model.weights_sha256;
    if (expected == weights_sha256) continue;
    throw Error(file.label + ": was made for other weights, of " + in_quotes(file.edit.model.name) + ": SHA-256 " +
                expected + "; this model's is " + weights_sha256);
  }
}

}  // namespace rometrace
