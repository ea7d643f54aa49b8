#include "rometrace/model/torch_file.hpp"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "checks.hpp"
#include "files.hpp"
#include "model/torch_tensors.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/json_file.hpp"
#include "torch_bytes.hpp"

namespace rometrace::torch_file_test {
namespace {

using testing::bytes_of;
using testing::Contains;
using testing::message_of;
using testing::number_bytes;
using testing::old_torch;
using testing::old_torch_head;
using testing::torch_zip;
using testing::zip_bytes;
using testing::pickled::call;
using testing::pickled::entry;
using testing::pickled::global;
using testing::pickled::number;
using testing::pickled::pickle;
using testing::pickled::sizes;
using testing::pickled::storage;
using testing::pickled::tensor;
using testing::pickled::text;
using testing::pickled::tuple;

const std::filesystem::path kFixtures = ROMETRACE_SOURCE_DIR "/tests/fixtures/torch";
const std::vector<std::string> kSingleFiles = {"zip_2.bin", "zip_3.bin", "zip_4.bin",
                                               "zip_5.bin", "old_2.bin", "old_4.bin"};

std::vector<TensorView> read(const std::string& file) {
  return read_torch_tensors(std::as_bytes(std::span(file)), "f.bin");
}

std::string refusal(const std::string& file) {
  std::string message = message_of<Error>([&] { read(file); });
  CHECK(testing::is_one_line(message));
  return message;
}

std::string text_of(const TensorView& view) {
  return {reinterpret_cast<const char*>(view.bytes.data()), view.bytes.size()};
}

const TensorView& find(const std::vector<TensorView>& tensors, const std::string& name) {
  const auto found = std::find_if(tensors.begin(), tensors.end(), [&](const auto& view) { return view.name == name; });
  REQUIRE(found != tensors.end());
  return *found;
}

const std::string kData = bytes_of<float>({1, 2, 3, 4, 5, 6});
const std::string kStorage = storage("FloatStorage", "0", 6);

/// A zip file of one tensor, "t", of six floats.
std::string one_tensor(const std::string& value) {
  return torch_zip(pickle(entry(text("t"), value)), {kData});
}

TEST_CASE("a tensor of either format comes back with dtype, shape, strides and bytes") {
  const std::string value = tensor(kStorage, 1, {2, 2}, {1, 2});
  const std::string state = pickle(entry(text("t"), value));
  for (const std::string& file : {torch_zip(state, {kData}), old_torch(state, "0", 6, kData)}) {
    const std::vector<TensorView> tensors = read(file);
    REQUIRE(tensors.size() == 1);
    CHECK(tensors[0].name == "t");
    CHECK(tensors[0].dtype == "F32");
    CHECK(tensors[0].shape == std::vector<std::int64_t>{2, 2});
    CHECK(tensors[0].strides == std::vector<std::int64_t>{1, 2});
    CHECK(text_of(tensors[0]) == bytes_of<float>({2, 3, 4, 5}));
  }
}

TEST_CASE("what torch.save wrote in every format and protocol holds the same tensors") {
  for (const std::string& name : kSingleFiles) {
    CAPTURE(name);
    const TorchFile file = TorchFile::open(kFixtures / name);
    CHECK(file.path() == kFixtures / name);
    CHECK(file.tensors().size() == (name.starts_with("zip") ? 29 : 24));
    const TensorView& whole = find(file.tensors(), "whole");
    CHECK(text_of(whole) == bytes_of<float>({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}));
    CHECK(find(file.tensors(), "same").bytes.data() == whole.bytes.data());
    CHECK(find(file.tensors(), "row").bytes.data() == whole.bytes.data() + 16);
    CHECK(find(file.tensors(), "row").strides.empty());
    CHECK(find(file.tensors(), "transposed").strides == std::vector<std::int64_t>{1, 4});
    CHECK(find(file.tensors(), "expanded").strides == std::vector<std::int64_t>{1, 0});
    CHECK(find(file.tensors(), "scalar").shape.empty());
    CHECK(find(file.tensors(), "empty").bytes.empty());
    CHECK(text_of(find(file.tensors(), "int16")) == bytes_of<std::int16_t>({0, 1, 2, 3, 4, 5}));
    if (!name.starts_with("zip")) continue;
    CHECK(find(file.tensors(), "float8_e4m3fn").dtype == "F8_E4M3");
    CHECK(text_of(find(file.tensors(), "uint16")) == bytes_of<std::uint16_t>({0, 1, 2, 3, 4, 5}));
  }
}

TEST_CASE("the first version of a tensor's description and parts of old storages are read") {
  const auto version_1 = call(global("torch._utils", "_rebuild_tensor"), {kStorage, number(4), sizes({2}), sizes({1})});
  CHECK(text_of(read(one_tensor(version_1))[0]) == bytes_of<float>({5, 6}));

  // Elements 2 to 5 of the storage, and of these the last two.
  const std::string part = tuple({text("storage"), global("torch", "FloatStorage"), text("0"), text("cpu"), number(6),
                                  tuple({text("1"), number(2), number(3)})}) +
                           "Q";
  const auto old = [&](std::int64_t offset) {
    return old_torch(pickle(entry(text("t"), tensor(part, offset, {2}, {1}))), "0", 6, kData);
  };
  CHECK(text_of(read(old(1))[0]) == bytes_of<float>({4, 5}));
  CHECK(refusal(old(2)) == Contains("offset 2, which lead outside its storage of 3 elements"));
}

TEST_CASE("a tensor that leads outside its storage is refused") {
  constexpr std::int64_t kLarge = std::numeric_limits<std::int64_t>::max();
  const std::vector<std::pair<std::string, const char*>> cases = {
      {tensor(kStorage, 0, {7}, {1}),
       "shape [7], strides [1] and offset 0, which lead outside its storage of 6 elements"},
      {tensor(kStorage, 7, {0}, {1}), "offset 7, which lead outside"},
      {tensor(kStorage, 6, {1}, {1}), "offset 6, which lead outside"},
      {tensor(kStorage, 0, {2}, {6}), "strides [6] and offset 0, which lead outside"},
      {tensor(kStorage, kLarge, {1}, {1}), "which lead outside"},
      {tensor(kStorage, 0, {kLarge}, {kLarge}), "which lead outside"},
      {tensor(kStorage, 0, {kLarge, kLarge}, {1, 1}), "which lead outside"},
      {tensor(kStorage, 0, {kLarge, 2}, {0, 0}), "which lead outside"},
      {tensor(kStorage, 0, {std::int64_t{1} << 32, std::int64_t{1} << 32}, {0, 0}), "which lead outside"},
      {tensor(kStorage, -1, {1}, {1}), "tensor \"t\" has the number -1 as its offset; expected a number from 0 up"},
      {tensor(kStorage, 0, {-1}, {1}), "has the number -1 as its shape"},
      {tensor(kStorage, 5, {2}, {-1}), "has the number -1 as its strides"},
      {tensor(kStorage, 0, {2, 3}, {1}), "has shape [2,3] and strides [1]; expected as many of each"},
      {tensor(kStorage, 0, std::vector<std::int64_t>(17, 1), {1}),
       "has a tuple of 17 as its shape; expected at most 16"},
      {tensor(storage("FloatStorage", "0", -6), 0, {1}, {1}), "the number -6 as its storage's number of elements"},
      {tensor(storage("FloatStorage", "0", 7), 0, {1}, {1}), "entry \"data/0\" has 24 bytes, but the storage takes 28"},
      {tensor(storage("DoubleStorage", "0", kLarge), 0, {1}, {1}), "elements, larger than any file"},
      {tensor(storage("FloatStorage", "1", 6), 0, {1}, {1}), "has no entry \"data/1\", a storage"},
      {tensor(storage("FloatStorage", "../data.pkl", 1), 0, {1}, {1}), "has no entry \"data/../data.pkl\""},
  };
  for (const auto& [value, expected] : cases) {
    CAPTURE(expected);
    CHECK(refusal(one_tensor(value)) == Contains(expected));
  }
}

TEST_CASE("a description that is not a tensor's is refused by the tensor's name") {
  const std::string rebuild = global("torch._utils", "_rebuild_tensor_v2");
  const std::string rebuild_3 = global("torch._utils", "_rebuild_tensor_v3");
  const std::string parameter = global("torch._utils", "_rebuild_parameter");
  const std::string parameter_with_state = global("torch._utils", "_rebuild_parameter_with_state");
  const std::string with_attributes = global("torch._tensor", "_rebuild_from_type_v2");
  const std::string tensor_class = global("torch", "Tensor");
  const std::string untyped =
      tuple({text("storage"), global("torch.storage", "UntypedStorage"), text("0"), text("cpu"), number(24)}) + "Q";
  const auto version_3 = [&](const std::string& stored, const std::string& dtype) {
    return call(rebuild_3, {stored, number(0), sizes({1}), sizes({1}), "\x89", "}", dtype});
  };
  const std::vector<std::pair<std::string, const char*>> cases = {
      {call(rebuild, {}), "is described by 0 values, too few for _rebuild_tensor_v2"},
      {call(rebuild_3, {kStorage, number(0), sizes({1}), sizes({1})}), "described by 4 values, too few for"},
      {call(rebuild, {number(1), number(0), sizes({1}), sizes({1})}), "is of the number 1; expected a storage"},
      {call(rebuild, {kStorage, text("x"), sizes({1}), sizes({1})}), "has the text \"x\" as its offset"},
      {call(rebuild, {kStorage, number(0), number(1), sizes({1})}), "has the number 1 as its shape"},
      {call(rebuild, {number(1) + "Q", number(0), sizes({1}), sizes({1})}),
       "a storage that is described by the number 1"},
      {call(rebuild, {tuple({text("module"), number(0), number(0), number(0), number(0)}) + "Q", number(0), sizes({1}),
                      sizes({1})}),
       "a storage that is described by a tuple of 5; expected (\"storage\", class"},
      {tensor(tuple({text("storage"), global("torch", "float32"), text("0"), text("cpu"), number(6)}) + "Q", 0, {1},
              {1}),
       "is of torch.float32; expected a storage's class"},
      {tensor(untyped, 0, {1}, {1}), "is of a storage without a dtype"},
      {version_3(untyped, text("float32")), "has the text \"float32\" as its dtype"},
      {version_3(untyped, global("torch", "FloatStorage")), "has torch.FloatStorage as its dtype"},
      {version_3(kStorage, global("torch", "float16")), "has two dtypes"},
      {call(parameter, {}), "is a parameter without a tensor"},
      {call(parameter, {call(parameter, {kStorage})}), "is a parameter of a parameter"},
      {call(parameter, {number(1)}), "is the number 1; expected a tensor"},
      {call(parameter_with_state, {call(parameter, {kStorage})}), "is a parameter of a parameter"},
      {call(with_attributes, {rebuild, tensor_class}), "has attributes, but is not described as a tensor is"},
      {call(with_attributes, {tensor_class, tensor_class, sizes({1})}), "has attributes, but is not described"},
      {call(with_attributes, {parameter, tensor_class, sizes({1})}), "has attributes, but is not described"},
      {call(with_attributes, {rebuild, tensor_class, number(1)}), "has attributes, but is not described"},
      {call(with_attributes, {rebuild, tensor_class, sizes({1})}), "is described by 1 values, too few for"},
  };
  for (const auto& [value, expected] : cases) {
    CAPTURE(expected);
    CHECK(refusal(one_tensor(value)) == Contains(expected));
  }
  CHECK(text_of(read(one_tensor(version_3(untyped, global("torch", "float64"))))[0]) == kData.substr(0, 8));
}

TEST_CASE("a parameter and a tensor with attributes are the tensors that they are made of") {
  const std::string rebuild = global("torch._utils", "_rebuild_tensor_v2");
  const std::string state = entry(text("note"), number(1));
  const auto arguments = tuple({kStorage, number(1), sizes({2}), sizes({1}), "\x89", "}"});
  const auto plain = tensor(kStorage, 1, {2}, {1});
  const auto with_attributes =
      call(global("torch._tensor", "_rebuild_from_type_v2"), {rebuild, global("torch", "Tensor"), arguments, state});
  const auto parameter = [](const std::string& data) {
    return call(global("torch._utils", "_rebuild_parameter"), {data, "\x88", "}"});
  };
  for (const auto& value :
       {with_attributes, parameter(plain), parameter(with_attributes),
        call(global("torch._utils", "_rebuild_parameter_with_state"), {plain, "\x88", "}", state})}) {
    const auto tensors = read(one_tensor(value));
    REQUIRE(tensors.size() == 1);
    CHECK(text_of(tensors[0]) == bytes_of<float>({2, 3}));
  }
}

TEST_CASE("what stands beside the tensors and is none is left out, with the storages of what it holds") {
  const std::string value = tensor(kStorage, 0, {6}, {1});
  const auto nested = entry(text("moment"), tensor(storage("FloatStorage", "1", 6), 0, {6}, {1}));
  for (const auto& other :
       {number(3), std::string("]"), std::string("}"), sizes({1}), kStorage, text("x"), nested,
        call(global("collections", "Counter"), {entry(number(3), number(1))}),
        call(global("torch", "device"), {text("cpu")}), call(global("torch", "FloatStorage"), {})}) {
    for (const auto& key : {text("optimizer"), number(1)}) {
      const auto tensors = read(torch_zip(pickle("}(" + key + other + text("t") + value + "u"), {kData, kData}));
      REQUIRE(tensors.size() == 1);
      CHECK(tensors[0].name == "t");
    }
  }
  // In the old format the storages' bytes follow each other, whoever has them.
  const auto state =
      pickle("}(" + text("other") + entry(text("u"), tensor(storage("FloatStorage", "k", 6), 0, {6}, {1})) + text("t") +
             tensor(storage("FloatStorage", "k", 6), 3, {1}, {1}) + "u");
  CHECK(text_of(read(old_torch(state, "k", 6, kData))[0]) == bytes_of<float>({4}));
  CHECK(refusal(one_tensor("]")) ==
        "f.bin: has no tensors, but other entries, such as the text \"t\"; expected a state dict, a dictionary from "
        "names to tensors");
}

TEST_CASE("two tensors may share a storage, but not describe it differently") {
  const auto file = [](const std::string& second) {
    return torch_zip(pickle("}(" + text("a") + tensor(kStorage, 0, {6}, {1}) + text("b") + second + "u"), {kData});
  };
  const std::vector<TensorView> tensors = read(file(tensor(kStorage, 3, {3}, {1})));
  REQUIRE(tensors.size() == 2);
  CHECK(tensors[1].bytes.data() == tensors[0].bytes.data() + 12);
  CHECK(refusal(file(tensor(storage("FloatStorage", "0", 5), 0, {1}, {1}))) ==
        Contains("tensor \"b\" is of storage \"0\", which another tensor describes differently"));
  CHECK(refusal(file(tensor(storage("HalfStorage", "0", 6), 0, {1}, {1}))) == Contains("describes differently"));
}

TEST_CASE("a dictionary that is no state dict is refused with what to do") {
  const std::string value = tensor(kStorage, 0, {6}, {1});
  const auto whole = [](const std::string& root) { return refusal(torch_zip(pickle(root), {kData})); };
  CHECK(whole(value) == Contains("holds a call of torch._utils._rebuild_tensor_v2; expected a state dict"));
  CHECK(whole("]") == Contains("holds a list; expected a state dict"));
  CHECK(whole(entry(number(1), value)) == Contains("has the number 1 where the name of a tensor is expected"));
  CHECK(whole(entry(text("\xff"), value)) == Contains("has the text \"\\xff\" where the name of a tensor is expected"));
  CHECK(whole("}(" + text("a") + value + text("a") + value + "u") == Contains("tensor \"a\" is there twice"));
  for (const char* name : {"state_dict", "model"}) {
    CHECK(whole("}(" + text("epoch") + number(3) + text(name) + entry(text("t"), value) + "u") ==
          "f.bin: holds its tensors inside \"" + std::string(name) +
              "\", as training code saves them; save the model's part alone: python -c \"import torch; "
              "torch.save(torch.load('FILE', weights_only=True)['" +
              name + "'], 'FILE')\"");
  }
  CHECK(whole("}(" + text("model") + entry(text("t"), value) + text("ema") + entry(text("t"), value) + "u") ==
        Contains("holds its tensors inside \"model\" and \"ema\", as training code saves them; save the model's"));
  CHECK(whole(entry(text("optimizer"), "}")) == Contains("has no tensors, but other entries"));
}

TEST_CASE("a zip archive that is no state dict is refused with what it is") {
  const std::string state = pickle("}");
  CHECK(read(zip_bytes({{"m/data.pkl", state}, {"m/version", "3\n"}})).empty());
  CHECK(refusal(zip_bytes({{"m/data.pkl", state}, {"m/byteorder", "big"}})) ==
        "f.bin: its byte order is \"big\"; expected \"little\"");
  CHECK(refusal(zip_bytes({{"m/data.pkl", state}, {"m/constants.pkl", ""}})) == Contains("is a TorchScript program"));
  CHECK(refusal(zip_bytes({{"word/document.xml", ""}})) == Contains("is a zip archive without data.pkl"));
  CHECK(refusal(zip_bytes({{"a/x", ""}, {"b/data.pkl", state}})) == Contains("is a zip archive without data.pkl"));
  CHECK(refusal(zip_bytes({{"m/data.pkl", state, 8}})) == Contains("entry \"m/data.pkl\" is compressed (method 8)"));
  CHECK(refusal(torch_zip(pickle(global("os", "system") + text("x") + "\x85R"), {})) ==
        "f.bin: data.pkl: pickle, byte 2: refers to \"os.system\", which is no part of a file of tensors; nothing was "
        "run");
}

TEST_CASE("a file in the old format that does not hold together is refused") {
  const std::string state = pickle(entry(text("t"), tensor(storage("FloatStorage", "k", 6), 0, {6}, {1})));
  CHECK(text_of(read(old_torch(state, "k", 6, kData + "what follows"))[0]) == kData);
  const std::string keys = pickle("]" + text("k") + "a");
  const std::string magic = pickle("\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19");
  const std::string big = pickle(entry(text("little_endian"), "\x89"));
  const std::vector<std::pair<std::string, const char*>> cases = {
      {pickle("}"), "is a pickle that begins with a dictionary; expected the magic number of torch.save"},
      {pickle("\x8a\x0a" + std::string(10, '\x11')), "begins with a number of 10 bytes; expected the magic number"},
      {magic + pickle(number(1002)), "its protocol is the number 1002; expected the number 1001"},
      {magic + pickle(number(1001)) + big, "does not say that it was written with the least significant byte first"},
      {magic + pickle(number(1001)) + pickle("]"), "does not say that it was written with the least"},
      {old_torch_head() + state + pickle("}"), "has a dictionary where the list of its storages is expected"},
      {old_torch_head() + state + pickle("]"), "has no storage \"k\""},
      {old_torch(state, "z", 6, kData), "lists the text \"z\" as a storage, which no tensor has"},
      {old_torch(state, "k", 5, kData), "storage \"k\" has 5 elements; expected 6"},
      {old_torch(state, "k", ~std::uint64_t{0}, kData), "has 18446744073709551615 elements; expected 6"},
      {old_torch(state, "k", 6, kData.substr(1)), "cut short: storage \"k\" takes 24 bytes, and 31 are left"},
      {old_torch_head() + state + pickle("](" + text("k") + text("k") + "e") + number_bytes(6, 8) + kData +
           number_bytes(6, 8) + kData,
       "lists storage \"k\" twice"},
      {old_torch_head() + pickle(global("os", "system") + text("x") + "\x85R") + keys, "refers to \"os.system\""},
  };
  for (const auto& [file, expected] : cases) {
    CAPTURE(expected);
    CHECK(refusal(file) == Contains(expected));
  }
}

TEST_CASE("other formats under this name are told apart") {
  CHECK(refusal("version https://git-lfs.github.com/spec/v1\n") == Contains("is a Git LFS pointer"));
  CHECK(refusal(std::string(257, '\0') + "ustar") == Contains("is in the tar format of PyTorch before 0.1.10"));
  CHECK(refusal("<!DOCTYPE html>") == Contains("is neither a zip archive nor a pickle"));
  CHECK(refusal("") == Contains("is neither a zip archive nor a pickle"));
  const testing::TemporaryFolder folder;
  CHECK(message_of<Error>([&] { TorchFile::open(folder.write("f.bin", "")); }) == Contains("f.bin: is empty"));
  CHECK(message_of<Error>([&] { TorchFile::open(folder.path() / "none"); }) == Contains("none: no such file"));
}

TEST_CASE("every beginning of a file of torch.save is refused") {
  for (const std::string& name : kSingleFiles) {
    CAPTURE(name);
    const std::string file = read_text_file(kFixtures / name);
    for (std::size_t length = 0; length < file.size(); ++length) {
      // A copy of that size, so that a sanitizer sees the first byte that is read past its end.
      const std::string beginning = file.substr(0, length);
      CAPTURE(length);
      CHECK(message_of<Error>([&] { read(beginning); }) != "(nothing thrown)");
    }
  }
}

TEST_CASE("a file of torch.save with any one byte changed is read inside its bounds, or refused") {
  std::size_t refused = 0;
  for (const std::string name : {"zip_4.bin", "old_2.bin"}) {
    const std::string file = read_text_file(kFixtures / name);
    for (std::size_t at = 0; at < file.size(); ++at) {
      std::string changed = file;
      changed[at] = static_cast<char>(~changed[at]);
      try {
        for (const TensorView& view : read(changed)) {
          const auto* begin = reinterpret_cast<const char*>(view.bytes.data());
          const bool is_inside = view.bytes.empty() || (begin >= changed.data() &&
                                                        begin + view.bytes.size() <= changed.data() + changed.size());
          if (!is_inside) FAIL_CHECK(name << ", byte " << at << ": tensor " << view.name << " is outside the file");
        }
      } catch (const Error&) {
        ++refused;
      }
    }
  }
  CHECK(refused > 1000);
}

}  // namespace
}  // namespace rometrace::torch_file_test
