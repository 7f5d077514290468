// Native libraries as modules: the bundler turns the import into the path of the file.
declare module "*.so" {
  const path: string;
  export default path;
}
declare module "*.dylib" {
  const path: string;
  export default path;
}
declare module "*.dll" {
  const path: string;
  export default path;
}
declare module "*.gguf" {
  const path: string;
  export default path;
}
