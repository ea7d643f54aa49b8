#include "rometrace/edit/written_model.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "checks.hpp"
#include "edits.hpp"
#include "file_size_limit.hpp"
#include "files.hpp"
#include "golden_models.hpp"
#include "random_model.hpp"
#include "rometrace/error.hpp"
#include "rometrace/model/decoder.hpp"
#include "rometrace/model/safetensors.hpp"

namespace rometrace::written_model_test {
namespace {

namespace fs = std::filesystem;

using testing::Contains;
using testing::message_of;
using testing::random_edit;
using testing::TemporaryFolder;

std::string read(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

/// The stack of one edit.
EditStack stack_of(const TemporaryFolder& folder, const Edit& edit) {
  return EditStack::read(std::vector{folder.write("one.edit", edit_file_bytes(edit))});
}

at::Tensor logits_of(const Decoder& model) {
  const std::vector<std::int32_t> ids = {3, 1, 2};
  return model.logits(model.forward(ids, 1));
}

TEST_CASE("a model of any family and dtype that is written with an edit is the one that the edit makes in memory") {
  const at::NoGradGuard no_grad;
  std::mt19937 engine(1);
  for (const auto& golden : testing::golden_models()) {
    CAPTURE(golden.name);
    const TemporaryFolder folder;
    const auto original = Decoder::load(golden.folder);
    const std::vector<std::int64_t> layers = {original->config().layers - 1};
    if (original->config().experts) {  // no single matrix leads out of their MLPs
      CHECK(testing::message_of<Error>([&] {
              original->mlp_output_matrix(0);
            }).starts_with("edits are not to be had of "));
      continue;
    }
    const auto edits = stack_of(folder, random_edit(*original, layers, 2, engine));
    const auto target = folder.path() / "edited";
    const auto result = write_edited_model(golden.folder, edits, target);
    CHECK(result.written.size() == 1);
    for (const auto dtype : {at::kFloat, at::kDouble}) {
      LoadOptions how{dtype, at::kCPU, Products::kUnpacked, std::nullopt};
      const auto written = Decoder::load(target, how);
      how.changes = edits.changes();
      const auto in_memory = logits_of(*Decoder::load(golden.folder, how));
      CHECK(at::equal(logits_of(*written), in_memory));
      how.changes.clear();
      CHECK_FALSE(at::equal(in_memory, logits_of(*Decoder::load(golden.folder, how))));
    }
    const auto& change = edits.files().front().edit.matrices.front().change;
    const auto written = Checkpoint::open(target);
    const auto hash = written.sha256(change.tensor, written.stored(change.tensor).shape);
    CHECK(hash == std::vector{change.sha256_after});
    CHECK(names_in(golden.folder) == names_in(target));
    for (const auto& name : names_in(target)) {
      if (name != result.written.front()) CHECK(read(target / name) == read(golden.folder / name));
    }
  }
}

TEST_CASE("of a file that is written anew nothing differs but the matrix, and other shards are the same files") {
  std::mt19937 engine(2);
  const TemporaryFolder folder;
  const fs::path sharded = ROMETRACE_SOURCE_DIR "/tests/goldens/models/sharded";
  fs::copy(sharded, folder.path() / "model");
  const auto source = folder.path() / "model";
  const auto model = Decoder::load(source);
  const auto edits = stack_of(folder, random_edit(*model, std::vector<std::int64_t>{0}, 1, engine));
  const auto tensor = edits.changes().front().tensor;
  const auto target = folder.path() / "edited";
  const auto result = write_edited_model(source, edits, target);
  REQUIRE(result.written.size() == 1);
  CHECK(result.written.front() == model->checkpoint().file_of(tensor).filename());
  CHECK(result.linked.size() == model->weight_files().size() - 1);
  for (const auto& name : result.linked) CHECK(fs::equivalent(source / name, target / name));
  for (const auto& name : result.copied) {
    CHECK_FALSE(fs::equivalent(source / name, target / name));
    CHECK(read(source / name) == read(target / name));
  }
  const auto before = SafetensorsFile::open(source / result.written.front()),
             after = SafetensorsFile::open(target / result.written.front());
  const auto old_bytes = read(source / result.written.front()), new_bytes = read(target / result.written.front());
  REQUIRE(old_bytes.size() == new_bytes.size());
  CHECK(before.metadata() == after.metadata());
  CHECK(before.metadata().at("format") == "pt");
  for (std::size_t i = 0; i < before.tensors().size(); ++i) {
    const auto &one = before.tensors()[i], &other = after.tensors()[i];
    CHECK(one.name == other.name);
    const bool same = std::equal(one.bytes.begin(), one.bytes.end(), other.bytes.begin(), other.bytes.end());
    CHECK(same == (one.name != tensor));
  }
  struct stat status {};
  CHECK(::stat(target.c_str(), &status) == 0);
  const mode_t mask = ::umask(0);
  ::umask(mask);
  CHECK((status.st_mode & 0777U) == (0777U & ~mask));
  CHECK(::stat((target / result.written.front()).c_str(), &status) == 0);
  CHECK((status.st_mode & 0777U) == (0666U & ~mask));
}

TEST_CASE("weights in formats that were not read are left out, as they are not edited") {
  std::mt19937 engine(3);
  const TemporaryFolder folder, outside;
  write_random_model(folder, {}, engine);
  for (const char* name : {"pytorch_model.bin", "tf_model.h5", "pytorch_model.bin.index.json",
                           "inside/flax_model.msgpack", "model.safetensors.index.json"}) {
    folder.write(name, "x");
  }
  folder.write("tokenizer.json", "{}");
  folder.write("inside/a.jinja", "template");
  folder.write(".git/config", "hidden");
  const auto model = Decoder::load(folder.path());
  const auto edits = stack_of(outside, random_edit(*model, std::vector<std::int64_t>{1}, 1, engine));
  const auto target = outside.path() / "edited/";  // as a shell completes it
  const auto result = write_edited_model(folder.path(), edits, target);
  CHECK(result.left_out == std::vector<std::string>{"inside/flax_model.msgpack", "model.safetensors.index.json",
                                                    "pytorch_model.bin", "pytorch_model.bin.index.json",
                                                    "tf_model.h5"});
  CHECK(names_in(outside.path() / "edited") ==
        std::vector<std::string>{"config.json", "inside", "model.safetensors", "tokenizer.json"});
  CHECK(read(target / "inside/a.jinja") == "template");
}

/// A model and an edit of it, in a folder of their own.
struct Ready {
  Ready() {
    write_random_model(folder, {}, engine);
    edits = stack_of(outside, random_edit(*Decoder::load(folder.path()), std::vector<std::int64_t>{0}, 1, engine));
    outside.write("one.edit", "");
  }
  std::string refusal(const fs::path& target, const std::stop_token& stop = {}) const {
    auto message = message_of<Error>([&] { write_edited_model(folder.path(), edits, target, stop); });
    CHECK(testing::is_one_line(message));
    return message;
  }

  std::mt19937 engine{4};
  TemporaryFolder folder, outside;
  EditStack edits;
};

TEST_CASE("a target that cannot be a new folder is refused before anything is written") {
  const Ready ready;
  const auto& outside = ready.outside.path();
  ready.outside.write("full/file", "mine");
  ready.outside.write("file", "mine");
  CHECK(ready.refusal(outside / "full") == Contains("full: is not empty; expected a new folder"));
  CHECK(ready.refusal(outside / "file") == Contains("file: is there and is no folder"));
  CHECK(ready.refusal(outside / "none/edited") == Contains("none/edited: its folder does not exist"));
  CHECK(ready.refusal("") == Contains("is empty"));
  CHECK(ready.refusal(ready.folder.path() / "edited") == Contains("is inside the model's own folder"));
  CHECK(ready.refusal(ready.folder.path()) == Contains("is not empty"));
  CHECK(message_of<Error>([&] { write_edited_model(ready.folder.path(), {}, outside / "edited"); }) ==
        Contains("no edits"));
  CHECK(names_in(outside) == std::vector<std::string>{"file", "full", "one.edit"});
  fs::create_directory(outside / "empty");
  CHECK_NOTHROW(write_edited_model(ready.folder.path(), ready.edits, outside / "empty"));
  CHECK(fs::exists(outside / "empty/model.safetensors"));
}

TEST_CASE("an edit of other weights is refused before anything is written") {
  Ready ready;
  const TemporaryFolder other;
  write_random_model(other, {}, ready.engine);
  CHECK(message_of<Error>([&] { write_edited_model(other.path(), ready.edits, ready.outside.path() / "edited"); }) ==
        Contains("the edit was made for other weights"));
  // The matrix is the same, and something else is not.
  auto bytes = read(ready.folder.path() / "model.safetensors");
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  ready.folder.write("model.safetensors", bytes);
  CHECK(ready.refusal(ready.outside.path() / "edited") == Contains("was made for other weights"));
  CHECK(names_in(ready.outside.path()) == std::vector<std::string>{"one.edit"});
}

TEST_CASE("where there is no space, or a stop is asked for, nothing is left behind") {
  const Ready ready;
  const auto target = ready.outside.path() / "edited";
  {
    const testing::FileSizeLimit limit(2000);
    CHECK(ready.refusal(target) == Contains("edited: cannot be written: File too large"));
  }
  std::stop_source stop;
  stop.request_stop();
  CHECK_THROWS_AS(write_edited_model(ready.folder.path(), ready.edits, target, stop.get_token()), Interrupted);
  CHECK(names_in(ready.outside.path()) == std::vector<std::string>{"one.edit"});
}

}  // namespace
}  // namespace rometrace::written_model_test
